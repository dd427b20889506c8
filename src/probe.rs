//! Asks the server that runs with this configuration: for `postern health`, for orchestrators that can run a command but
//! no HTTP request, in images without other programs; and for commands that only the running server can carry out.

use postern_config::Listeners;
use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    time::Duration,
};

/// How long connecting, sending and reading may take, each.
const PATIENCE: Duration = Duration::from_secs(3);
/// Longest answer that is read, bytes: lines of JSON and headers.
const MAX_ANSWER: u64 = 16 << 20;

/// Why the server is not known to be ready.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No address answers without TLS.
    #[error("neither listeners.client nor listeners.metrics has an address, and only those are asked")]
    NoAddress,
    /// It cannot be asked.
    #[error("{0}: {1}")]
    Unreachable(SocketAddr, std::io::Error),
    /// It says something else.
    #[error("{0} is not ready: {1}")]
    NotReady(SocketAddr, String),
}

/// Asks, and gives what the server says.
pub fn ask(listeners: &Listeners) -> Result<String, Error> {
    let address = listeners.client.iter().chain(&listeners.metrics).next().ok_or(Error::NoAddress)?;
    let address = reachable(*address);
    let (status, body) = exchange(address, &Ask { path: "/_postern/health/ready", ..Ask::default() })?;
    if status == "200" { Ok(body) } else { Err(Error::NotReady(address, format!("{status} {body}"))) }
}

/// Asks something of an administrator, and gives the answer; the status tells whether it was done.
pub fn administer(listeners: &Listeners, ask: &Ask<'_>) -> Result<(String, String), Error> {
    let address = reachable(*listeners.client.first().ok_or(Error::NoAddress)?);
    exchange(address, ask)
}

/// A request.
#[derive(Debug)]
pub struct Ask<'a> {
    /// Where to.
    pub path: &'a str,
    /// The access token.
    pub token: Option<&'a str>,
    /// JSON; without, it is a `GET`.
    pub body: Option<&'a str>,
    /// How long the answer may take.
    pub patience: Duration,
}

impl Default for Ask<'_> {
    fn default() -> Self {
        Self { path: "/", token: None, body: None, patience: PATIENCE }
    }
}

/// Where a server that listens on all addresses is reached from its own machine.
const fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(IpAddr::V6(Ipv6Addr::LOCALHOST)),
        _ => {}
    }
    address
}

fn exchange(address: SocketAddr, ask: &Ask<'_>) -> Result<(String, String), Error> {
    let answer = send(address, ask).map_err(|error| Error::Unreachable(address, error))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    // The status follows the version.
    let status = head.split_whitespace().nth(1).unwrap_or_default();
    Ok((status.to_owned(), body.to_owned()))
}

fn send(address: SocketAddr, ask: &Ask<'_>) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(ask.patience))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let method = if ask.body.is_some() { "POST" } else { "GET" };
    // Version 1.0: the answer is not in chunks, and ends with the connection.
    let mut request = format!("{method} {} HTTP/1.0\r\nHost: {address}\r\n", ask.path);
    if let Some(token) = ask.token {
        request += &format!("Authorization: Bearer {token}\r\n");
    }
    let body = ask.body.unwrap_or_default();
    request += &format!("Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.take(MAX_ANSWER).read_to_string(&mut answer)?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_on_all_addresses_is_asked_on_its_own_machine() {
        for (listens, asked) in
            [("0.0.0.0:8008", "127.0.0.1:8008"), ("[::]:8008", "[::1]:8008"), ("10.0.0.1:80", "10.0.0.1:80")]
        {
            assert_eq!(reachable(listens.parse().unwrap()), asked.parse().unwrap());
        }
    }
}
