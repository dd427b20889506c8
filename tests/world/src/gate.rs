//! A gate before the address at which a server is reached by others, so that a test can part two servers that both run.

use std::{
    io::copy,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread::spawn,
};

/// What a gate lets through.
#[derive(Debug, Default)]
struct Passage {
    closed: bool,
    /// Both ends of all connections there were; those that have ended do no harm.
    ends: Vec<TcpStream>,
}

/// A gate, open at first. It stands until the program ends.
#[derive(Debug)]
pub struct Gate(Arc<Mutex<Passage>>);

impl Gate {
    /// Listens on `before` and passes all on to `behind`.
    ///
    /// # Panics
    /// The address is taken.
    pub(crate) fn between(before: SocketAddr, behind: SocketAddr) -> Self {
        let listener = TcpListener::bind(before).expect("a free address");
        let passage = Arc::new(Mutex::new(Passage::default()));
        let shared = passage.clone();
        spawn(move || {
            for incoming in listener.incoming().flatten() {
                // Whoever is behind it may be down.
                if let Ok(onward) = TcpStream::connect(behind) {
                    // A connection that breaks at once is no different from one that breaks later.
                    let _ = pass(&shared, incoming, onward);
                }
            }
        });
        Self(passage)
    }

    /// Ends all connections and lets no more through.
    pub fn close(&self) {
        let mut passage = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        passage.closed = true;
        for end in passage.ends.drain(..) {
            // It may have ended.
            let _ = end.shutdown(Shutdown::Both);
        }
    }

    /// Lets everything through again.
    pub fn open(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).closed = false;
    }
}

fn pass(passage: &Mutex<Passage>, one: TcpStream, other: TcpStream) -> std::io::Result<()> {
    let mut passage = passage.lock().unwrap_or_else(PoisonError::into_inner);
    if passage.closed {
        return Ok(());
    }
    passage.ends.extend([one.try_clone()?, other.try_clone()?]);
    for (mut from, mut to) in [(one.try_clone()?, other.try_clone()?), (other, one)] {
        spawn(move || {
            // Either end may break it off, and then both have ended.
            let _ = copy(&mut from, &mut to);
            let _ = from.shutdown(Shutdown::Both);
            let _ = to.shutdown(Shutdown::Both);
        });
    }
    Ok(())
}
