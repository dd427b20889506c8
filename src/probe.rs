//! `postern health`: asks the server that runs with this configuration whether it is ready, for orchestrators that
//! can run a command but no HTTP request, in images without other programs.

use postern_config::Listeners;
use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    time::Duration,
};

/// How long connecting, sending and reading may take, each.
const PATIENCE: Duration = Duration::from_secs(3);
/// Longest answer that is read, bytes: it is a line of JSON and its headers.
const MAX_ANSWER: u64 = 16 << 10;

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
    let answer = get(address).map_err(|error| Error::Unreachable(address, error))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    // The status follows the version.
    if head.split_whitespace().nth(1) == Some("200") {
        Ok(body.to_owned())
    } else {
        Err(Error::NotReady(address, head.lines().next().unwrap_or_default().to_owned() + " " + body))
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

fn get(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // Version 1.0: the answer is not in chunks, and ends with the connection.
    write!(stream, "GET /_postern/health/ready HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
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
