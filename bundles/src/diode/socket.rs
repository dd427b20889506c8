//! The sockets of a diode. Both ends block: give each a thread of its own.

use std::io;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use super::receiver::{Outcome, Receiver, ReceiverError};
use super::sender::{Pacer, Sender};
use crate::limits;

/// How often it is looked whether to stop.
const LOOK: Duration = Duration::from_millis(100);

/// Sends over a connected socket until nothing is due, or `stop` is set.
///
/// # Errors
/// If a bundle cannot be read, or a datagram cannot be sent. Calling it again goes on.
pub fn send(
    sender: &mut Sender,
    bits_per_second: u64,
    socket: &UdpSocket,
    stop: &AtomicBool,
) -> io::Result<()> {
    let mut pacer = Pacer::new(bits_per_second, Instant::now());
    while !stop.load(Ordering::Relaxed) {
        let Some(datagram) = sender.next_datagram()? else { return Ok(()) };
        let wait = pacer.wait(datagram.len(), Instant::now());
        if !wait.is_zero() {
            std::thread::sleep(wait);
        }
        match socket.send(&datagram) {
            // Nobody listens at the moment, or the queue of the device is full: to a diode that is loss.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::WouldBlock) => {}
            sent => _ = sent?,
        }
    }
    Ok(())
}

/// Receives until `stop` is set, and calls `each` with what each datagram did.
///
/// # Errors
/// If the socket or the receiver's disk fails.
pub fn receive(
    receiver: &mut Receiver,
    socket: &UdpSocket,
    stop: &AtomicBool,
    mut each: impl FnMut(&Receiver, Outcome),
) -> Result<(), ReceiverError> {
    // The kernel may give less; what it does not hold while a block is decoded is lost.
    _ = socket2::SockRef::from(socket).set_recv_buffer_size(limits::SOCKET_BYTES);
    socket.set_read_timeout(Some(LOOK))?;
    let (to, from) = sync_channel::<Vec<u8>>(limits::DATAGRAMS);
    std::thread::scope(|scope| {
        let listener = scope.spawn(move || -> io::Result<()> {
            let mut buffer = vec![0; limits::DATAGRAM_BYTES + 1];
            while !stop.load(Ordering::Relaxed) {
                match socket.recv(&mut buffer) {
                    Ok(length) if to.send(buffer.get(..length).unwrap_or_default().to_vec()).is_err() => {
                        break;
                    }
                    Ok(_) => {}
                    Err(error)
                        if matches!(
                            error.kind(),
                            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
                        ) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        });
        let mut result = Ok(());
        loop {
            match from.recv_timeout(LOOK) {
                Ok(datagram) => match receiver.datagram(&datagram) {
                    Ok(outcome) => each(receiver, outcome),
                    Err(error) => {
                        result = Err(error);
                        break;
                    }
                },
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        drop(from);
        let listened =
            listener.join().unwrap_or_else(|_| Err(io::Error::other("the listening thread ended")));
        result.and(listened.map_err(ReceiverError::Io))
    })
}
