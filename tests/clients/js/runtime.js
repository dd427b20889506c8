// matrix-js-sdk uses one function of JavaScript that Node has only from version 22 on. The client itself stays as it is.

Promise.withResolvers ??= function withResolvers() {
    let resolve, reject;
    const promise = new this((yes, no) => {
        resolve = yes;
        reject = no;
    });
    return { promise, resolve, reject };
};
