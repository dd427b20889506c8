//! Rules that concern more than one setting.

use crate::{Config, error::Problem};
use std::collections::BTreeSet;

pub(crate) fn together(config: &Config, problems: &mut Vec<Problem>) {
    let mut conflict = |keys: &str, reason: &str| {
        problems.push(Problem::Conflict { keys: keys.to_owned(), reason: reason.to_owned() });
    };
    let listeners = &config.listeners;
    if listeners.client.is_empty() && listeners.client_tls.is_empty() {
        conflict(
            "listeners.client, listeners.client_tls",
            "both are empty; clients need at least one address",
        );
    }
    if listeners.tls_certificate_file.is_some() != listeners.tls_key_file.is_some() {
        conflict(
            "listeners.tls_certificate_file, listeners.tls_key_file",
            "only one of them is set; a certificate and its key belong together",
        );
    }
    if !listeners.client_tls.is_empty() && listeners.tls_certificate_file.is_none() {
        conflict(
            "listeners.client_tls, listeners.tls_certificate_file",
            "an address with TLS needs a certificate and its key",
        );
    }
    if !listeners.federation_tls.is_empty() && listeners.tls_certificate_file.is_none() {
        conflict(
            "listeners.federation_tls, listeners.tls_certificate_file",
            "an address with TLS needs a certificate and its key",
        );
    }
    let mut seen = BTreeSet::new();
    let for_clients = listeners.client.iter().chain(&listeners.client_tls);
    let for_servers = listeners.federation.iter().chain(&listeners.federation_tls);
    let addresses = for_clients.chain(for_servers).chain(&listeners.metrics);
    for address in addresses.filter(|address| address.port() != 0) {
        if !seen.insert(address) {
            conflict(
                "listeners.client, listeners.client_tls, listeners.federation, listeners.federation_tls, \
                 listeners.metrics",
                &format!("{address} is given more than once; each listener needs an address of its own"),
            );
        }
    }
    let passwords = &config.passwords;
    if passwords.argon2_memory_kibibytes < 8 * passwords.argon2_parallelism {
        conflict(
            "passwords.argon2_memory_kibibytes, passwords.argon2_parallelism",
            "argon2 needs at least 8 kibibytes for each lane; give more memory or fewer lanes",
        );
    }
    let federation = &config.federation;
    if federation.client_certificate_file.is_some() != federation.client_key_file.is_some() {
        conflict(
            "federation.client_certificate_file, federation.client_key_file",
            "only one of them is set; a certificate and its key belong together",
        );
    }
    if federation.backoff_min_ms > federation.backoff_max_ms {
        conflict(
            "federation.backoff_min_ms, federation.backoff_max_ms",
            "the shortest pause is longer than the longest",
        );
    }
    if config.push.retry_min_ms > config.push.retry_max_ms {
        conflict("push.retry_min_ms, push.retry_max_ms", "the shortest pause is longer than the longest");
    }
}
