//! What is measured, and Prometheus' view of it.

use axum::{
    Router,
    extract::{MatchedPath, Request},
    response::Response,
    routing::get,
};
use futures::{FutureExt, future::Map};
use http::Method;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder};
use postern_graph::Graph;
use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};
use tower::Service;

/// Upper bounds of the buckets request durations are counted in, seconds.
const SECONDS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 120.0];

/// Starts measuring; what is returned serves `/metrics`.
pub fn metrics(graph: Arc<Graph>) -> Result<Router, BuildError> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
        .install_recorder()?;
    metrics::describe_counter!(
        "postern_http_requests_total",
        "Requests answered, by route, method and status"
    );
    metrics::describe_histogram!("postern_http_request_seconds", "Time from request to response, by route");
    metrics::describe_gauge!("postern_log_applied", "Position of the last commit applied");
    metrics::describe_gauge!("postern_log_durable", "Position of the last commit on disk");
    metrics::describe_gauge!("postern_memory_bytes", "Memory of the process");
    metrics::describe_gauge!("postern_connections", "Open client connections");
    metrics::describe_gauge!("postern_outbox_queues", "Servers that are due something");
    metrics::describe_gauge!("postern_outbox_events", "Events queued for other servers, once for each");
    metrics::describe_counter!(
        "postern_outbox_transactions_total",
        "Attempts to send a transaction, by result"
    );
    metrics::describe_gauge!("postern_push_lanes", "Pushers whose gateway is due something");
    metrics::describe_counter!("postern_push_total", "Notifications for push gateways, by result");
    Ok(Router::new().route(
        "/metrics",
        get(move || {
            let (handle, graph) = (handle.clone(), graph.clone());
            async move {
                #[allow(clippy::cast_precision_loss, reason = "gauges are floating point")]
                {
                    metrics::gauge!("postern_log_applied").set(graph.applied().0 as f64);
                    metrics::gauge!("postern_log_durable").set(graph.durable().0 as f64);
                    metrics::gauge!("postern_memory_bytes").set(resident_bytes() as f64);
                }
                handle.run_upkeep();
                handle.render()
            }
        }),
    ))
}

/// Memory of this process that is in RAM, bytes; 0 where the system does not say.
fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()));
    pages.unwrap_or(0) * 4096
}

/// Counts and times the requests of a service. Its futures are small: there is one for each request that waits.
#[derive(Debug, Clone)]
pub struct Observed<S>(pub S);

type Answered = Box<dyn FnOnce(Result<Response, Infallible>) -> Result<Response, Infallible> + Send>;

impl<S: Service<Request, Response = Response, Error = Infallible>> Service<Request> for Observed<S> {
    type Response = Response;
    type Error = Infallible;
    type Future = Map<S::Future, Answered>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let route = request.extensions().get::<MatchedPath>().cloned();
        let method = request.method().clone();
        let begun = Instant::now();
        self.0.call(request).map(Box::new(move |response| {
            response.inspect(|answer| {
                count(route.as_ref().map_or("none", MatchedPath::as_str), &method, answer, begun);
            })
        }))
    }
}

fn count(route: &str, method: &Method, answer: &Response, begun: Instant) {
    let (route, status) = (route.to_owned(), answer.status().as_u16().to_string());
    tracing::debug!(%method, route, status, ms = begun.elapsed().as_millis(), "answered");
    metrics::counter!(
        "postern_http_requests_total",
        "route" => route.clone(), "method" => method.to_string(), "status" => status
    )
    .increment(1);
    metrics::histogram!("postern_http_request_seconds", "route" => route)
        .record(begun.elapsed().as_secs_f64());
}
