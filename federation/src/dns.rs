//! Names to addresses and services.

use futures::future::{BoxFuture, FutureExt};
use hickory_resolver::{
    TokioResolver,
    config::{ResolverConfig, ResolverOpts},
    net::runtime::TokioRuntimeProvider,
    proto::rr::RData,
};
use rand::RngExt;
use std::{fmt, net::IpAddr};

/// Services of one name that are looked at: more than anyone has, fewer than hurt.
const SERVICES: usize = 16;

/// Where a service is (an SRV record, RFC 2782).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Lower ones are tried first.
    pub priority: u16,
    /// Among those of one priority, how often this one should be the first.
    pub weight: u16,
    /// The host.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// What discovery asks of the domain name system.
pub trait Dns: Send + Sync + fmt::Debug {
    /// The addresses of a host, over CNAME, AAAA and A records.
    fn addresses<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<Vec<IpAddr>, String>>;

    /// The SRV records of a name; nothing if there are none or they cannot be had.
    fn services<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Vec<Service>>;
}

/// The operating system's configuration: its name servers, and its hosts file as it was at the start.
pub struct System {
    resolver: TokioResolver,
}

impl fmt::Debug for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("System").finish_non_exhaustive()
    }
}

impl System {
    /// A resolver with the system's configuration; where there is none, with the hosts file alone.
    ///
    /// # Errors
    /// Why there is no resolver.
    pub fn new() -> Result<Self, String> {
        let builder = TokioResolver::builder_tokio().unwrap_or_else(|error| {
            tracing::warn!(%error, "no configuration of name servers: only the hosts file is used");
            TokioResolver::builder_with_config(ResolverConfig::default(), TokioRuntimeProvider::default())
                .with_options(ResolverOpts::default())
        });
        let resolver = builder.build().map_err(|error| error.to_string())?;
        Ok(Self { resolver })
    }
}

/// A name as it is, to which no search domain is added.
fn absolute(name: &str) -> String {
    format!("{}.", name.trim_end_matches('.'))
}

impl Dns for System {
    fn addresses<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<Vec<IpAddr>, String>> {
        async move {
            let found = self.resolver.lookup_ip(absolute(host)).await.map_err(|error| error.to_string())?;
            Ok(found.iter().collect())
        }
        .boxed()
    }

    fn services<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Vec<Service>> {
        async move {
            let found = match self.resolver.srv_lookup(absolute(name)).await {
                Ok(found) => found,
                Err(error) => {
                    if !error.is_no_records_found() {
                        tracing::debug!(name, %error, "services could not be looked up");
                    }
                    return Vec::new();
                }
            };
            let services = found.answers().iter().filter_map(|record| match &record.data {
                RData::SRV(srv) => Some(Service {
                    priority: srv.priority,
                    weight: srv.weight,
                    host: srv.target.to_ascii().trim_end_matches('.').to_owned(),
                    port: srv.port,
                }),
                _ => None,
            });
            services.take(SERVICES).collect()
        }
        .boxed()
    }
}

/// The order in which services are tried (RFC 2782): by priority, and by chance in proportion to their weight.
#[must_use]
pub fn in_order(mut services: Vec<Service>) -> Vec<Service> {
    services.sort_by_key(|service| (service.priority, service.weight));
    let mut ordered = Vec::with_capacity(services.len());
    while let Some(first) = services.first() {
        let priority = first.priority;
        let alike = services.iter().take_while(|service| service.priority == priority);
        let total: u32 = alike.map(|service| u32::from(service.weight)).sum();
        let mut left = rand::rng().random_range(0..=total);
        let chosen = services.iter().position(|service| {
            let weight = u32::from(service.weight);
            let here = left <= weight;
            left = left.saturating_sub(weight);
            here
        });
        ordered.push(services.remove(chosen.unwrap_or(0)));
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(priority: u16, weight: u16) -> Service {
        Service { priority, weight, host: format!("{priority}-{weight}"), port: 1 }
    }

    #[test]
    fn services_are_tried_by_priority_and_each_once() {
        for _ in 0..200 {
            let given =
                vec![service(20, 5), service(10, 0), service(10, 90), service(10, 10), service(20, 0)];
            let ordered = in_order(given.clone());
            let priorities: Vec<u16> = ordered.iter().map(|service| service.priority).collect();
            assert_eq!(priorities, [10, 10, 10, 20, 20]);
            assert!(given.iter().all(|service| ordered.contains(service)));
        }
    }

    #[test]
    fn a_heavier_service_is_mostly_first() {
        let first = |_| in_order(vec![service(1, 10), service(1, 90)]).remove(0).weight;
        let heavy = (0..500).map(first).filter(|weight| *weight == 90).count();
        assert!(heavy > 350, "{heavy} of 500");
    }

    #[tokio::test]
    async fn names_of_the_hosts_file_are_known() {
        let system = System::new().unwrap();
        assert!(system.addresses("localhost").await.unwrap().iter().all(IpAddr::is_loopback));
    }
}
