//! Passwords: argon2id, computed off the threads that serve requests, a few at a time.

use crate::{Error, limits};
use argon2::{Algorithm, Argon2, Params, Version};
use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;

/// How much work a password hash is.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// Memory, KiB.
    pub memory_kib: u32,
    /// Passes.
    pub iterations: u32,
    /// Lanes.
    pub parallelism: u32,
}

/// A stored password hash.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct PasswordHash {
    memory_kib: u32,
    iterations: u32,
    parallelism: u32,
    salt: String,
    hash: String,
}

impl std::fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PasswordHash(…)")
    }
}

/// Hashes and checks passwords.
#[derive(Debug)]
pub(crate) struct Passwords {
    cost: Cost,
    turns: Arc<Semaphore>,
}

impl Passwords {
    pub(crate) fn new(cost: Cost) -> Self {
        Self { cost, turns: Arc::new(Semaphore::new(limits::PASSWORD_HASHES_AT_ONCE)) }
    }

    pub(crate) async fn hash(&self, password: &str) -> Result<PasswordHash, Error> {
        let salt: [u8; 16] = rand::random();
        let hash = self.compute(password, salt.to_vec(), self.cost).await?;
        Ok(PasswordHash {
            memory_kib: self.cost.memory_kib,
            iterations: self.cost.iterations,
            parallelism: self.cost.parallelism,
            salt: STANDARD_NO_PAD.encode(salt),
            hash: STANDARD_NO_PAD.encode(hash),
        })
    }

    /// Whether `password` is the one; without a hash the same work is done and the answer is no, so that nobody can
    /// measure which accounts exist.
    pub(crate) async fn check(&self, password: &str, stored: Option<&PasswordHash>) -> Result<bool, Error> {
        let Some(stored) = stored else {
            self.compute(password, vec![0; 16], self.cost).await?;
            return Ok(false);
        };
        let internal = |error: base64::DecodeError| Error::Internal(error.to_string());
        let cost = Cost {
            memory_kib: stored.memory_kib,
            iterations: stored.iterations,
            parallelism: stored.parallelism,
        };
        let salt = STANDARD_NO_PAD.decode(&stored.salt).map_err(internal)?;
        let expected = STANDARD_NO_PAD.decode(&stored.hash).map_err(internal)?;
        let hash = self.compute(password, salt, cost).await?;
        Ok(hash.ct_eq(&expected).into())
    }

    async fn compute(&self, password: &str, salt: Vec<u8>, cost: Cost) -> Result<Vec<u8>, Error> {
        if password.len() > limits::PASSWORD_BYTES {
            return Err(Error::InvalidParam(format!(
                "a password has at most {} bytes",
                limits::PASSWORD_BYTES
            )));
        }
        let internal = |error: &dyn std::fmt::Display| Error::Internal(error.to_string());
        let _turn = self.turns.clone().acquire_owned().await.map_err(|error| internal(&error))?;
        let password = zeroize::Zeroizing::new(password.to_owned());
        tokio::task::spawn_blocking(move || {
            let params = Params::new(cost.memory_kib, cost.iterations, cost.parallelism, Some(32))
                .map_err(|error| Error::Internal(error.to_string()))?;
            let mut out = vec![0; 32];
            Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
                .hash_password_into(password.as_bytes(), &salt, &mut out)
                .map_err(|error| Error::Internal(error.to_string()))?;
            Ok(out)
        })
        .await
        .map_err(|error| internal(&error))?
    }
}
