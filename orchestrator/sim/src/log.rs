//! The cluster's own log, with virtual time and the node that speaks.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

use crate::executor;

struct VirtualTime;

impl FormatTime for VirtualTime {
    fn format_time(&self, writer: &mut Writer<'_>) -> std::fmt::Result {
        executor::try_with(|core| {
            write!(writer, "{:>12.6} node {}", core.now().as_secs_f64(), core.current().node)
        })
        .unwrap_or(Ok(()))
    }
}

/// Prints what `filter` lets through.
pub fn to_standard_error(filter: &str) {
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter))
        .with_timer(VirtualTime)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .finish();
    drop(tracing::subscriber::set_global_default(subscriber));
}
