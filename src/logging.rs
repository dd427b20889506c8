//! What the server tells about its work, on standard error.

use postern_config::{Log, LogFormat};
use tracing_subscriber::{EnvFilter, fmt};

/// Each step of every resolution of state is an event of level `info` there: whoever wants them names them.
const QUIET: &str = "ruma_state_res=warn";

/// Starts telling. The filter was checked when the configuration was read.
pub fn start(log: &Log) {
    // Of two for one target the later holds.
    let filter = EnvFilter::try_new(format!("{QUIET},{}", log.level.as_str()))
        .unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match log.format {
        LogFormat::Human => builder.with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    if let Err(error) = started {
        eprintln!("postern: no log: {error}");
    }
}
