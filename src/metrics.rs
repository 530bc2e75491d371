//! What this process counts for those who watch it, in the format of Prometheus. The names and the
//! labels are those of `docs/metrics.md`: more are added, none is changed.
//!
//! Counting never waits and never fails. No label holds a path, a digest or a credential, and no
//! reader of a mount can make more than a bounded number of series.

use std::collections::HashSet;
use std::sync::LazyLock;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    TextEncoder,
};

/// How many hosts have series of their own; the others share [`OTHER_HOSTS`].
const HOSTS_MAX: usize = 200;
/// The label of hosts past [`HOSTS_MAX`]. No host has such a name.
const OTHER_HOSTS: &str = "(others)";

/// Seconds: what the cache answers takes less than the first, a large download more than the last.
const SECONDS: [f64; 12] =
    [0.0001, 0.001, 0.005, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0, 30.0, 60.0, 300.0];

/// What the process counts.
static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

/// What the process counts.
pub fn metrics() -> &'static Metrics {
    &METRICS
}

/// See the module.
pub struct Metrics {
    registry: Registry,
    hosts: Mutex<HashSet<String>>,
    requests: IntCounterVec,
    received: IntCounterVec,
    failures: IntCounterVec,
    lookup: Histogram,
    open: Histogram,
    opendir: Histogram,
    /// Operations of the kernel that wait for a network or a disk.
    pub waiting: IntGauge,
    /// Bytes that were read through this process. The kernel does not tell what it reads by itself.
    pub served: IntCounter,
    /// Objects that were wanted and are in the cache.
    pub cache_hits: IntCounter,
    /// Objects that were wanted and are not in the cache.
    pub cache_misses: IntCounter,
    /// Objects that made room in the cache.
    pub evicted_objects: IntCounter,
    /// The space that they took.
    pub evicted_bytes: IntCounter,
    /// Cached objects that were no longer what was stored, and were set aside.
    pub quarantined: IntCounter,
}

/// What a request is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RequestKind {
    /// A blob, or the zip of a provider registry.
    Blob,
    /// A manifest, a tag list, a version list: any other document.
    Document,
    /// A token, or one more step of a request that was counted.
    Step,
}

impl RequestKind {
    fn label(self) -> &'static str {
        match self {
            RequestKind::Blob => "blob",
            RequestKind::Document => "document",
            RequestKind::Step => "step",
        }
    }
}

/// An operation of the kernel that may wait for a download.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimedOperation {
    /// Finding a name.
    Lookup,
    /// Opening a file to read it.
    Open,
    /// Opening a directory.
    Opendir,
}

impl Metrics {
    fn new() -> Metrics {
        let registry = Registry::new();
        let seconds = registered(
            &registry,
            HistogramVec::new(
                HistogramOpts::new(
                    "tofufs_operation_seconds",
                    "Time until an operation of the kernel was answered, by operation.",
                )
                .buckets(SECONDS.to_vec()),
                &["operation"],
            ),
        );
        let counters = |name, help, labels: &[&str]| {
            registered(&registry, IntCounterVec::new(Opts::new(name, help), labels))
        };
        let counter = |name, help| registered(&registry, IntCounter::new(name, help));
        Metrics {
            requests: counters(
                "tofufs_requests_total",
                "HTTP requests, by host, kind (blob, document, step) and status (none: no answer).",
                &["host", "kind", "status"],
            ),
            received: counters(
                "tofufs_received_bytes_total",
                "Bytes of answers' bodies, by host.",
                &["host"],
            ),
            failures: counters(
                "tofufs_failures_total",
                "Operations that failed, by the reason and the errno that the reader was told.",
                &["reason", "errno"],
            ),
            lookup: seconds.with_label_values(&["lookup"]),
            open: seconds.with_label_values(&["open"]),
            opendir: seconds.with_label_values(&["opendir"]),
            waiting: registered(
                &registry,
                IntGauge::new(
                    "tofufs_waiting_operations",
                    "Operations of the kernel that wait for a network or a disk.",
                ),
            ),
            served: counter(
                "tofufs_served_bytes_total",
                "Bytes of files that were read through this process, not by the kernel alone.",
            ),
            cache_hits: counter(
                "tofufs_cache_hits_total",
                "Objects that were wanted and are in the cache.",
            ),
            cache_misses: counter(
                "tofufs_cache_misses_total",
                "Objects that were wanted and are not in the cache.",
            ),
            evicted_objects: counter(
                "tofufs_cache_evicted_objects_total",
                "Objects that made room in the cache.",
            ),
            evicted_bytes: counter(
                "tofufs_cache_evicted_bytes_total",
                "Bytes that made room in the cache.",
            ),
            quarantined: counter(
                "tofufs_cache_quarantined_objects_total",
                "Cached objects that were not what was stored any more, and were set aside.",
            ),
            hosts: Mutex::default(),
            registry,
        }
    }

    /// A request was sent to `host`; `status` is that of its answer, if one came.
    pub fn requested(&self, host: &str, kind: RequestKind, status: Option<u16>) {
        let status = status.map_or_else(|| "none".to_owned(), |status| status.to_string());
        self.requests.with_label_values(&[self.label_of(host), kind.label(), &status]).inc();
    }

    /// So many bytes of an answer came from `host`.
    pub fn received(&self, host: &str, bytes: usize) {
        self.received.with_label_values(&[self.label_of(host)]).inc_by(bytes as u64);
    }

    /// An operation failed for `reason`; who asked was told `errno`.
    pub fn failed(&self, reason: &str, errno: &str) {
        self.failures.with_label_values(&[reason, errno]).inc();
    }

    /// An operation was answered after `elapsed`.
    pub fn answered(&self, operation: TimedOperation, elapsed: Duration) {
        let seconds = match operation {
            TimedOperation::Lookup => &self.lookup,
            TimedOperation::Open => &self.open,
            TimedOperation::Opendir => &self.opendir,
        };
        seconds.observe(elapsed.as_secs_f64());
    }

    /// All that was counted, with what `more` says of this moment, as text.
    pub fn text(&self, more: Vec<MetricFamily>) -> String {
        let mut families = self.registry.gather();
        families.extend(more);
        TextEncoder::new().encode_to_string(&families).unwrap_or_default()
    }

    fn label_of<'a>(&self, host: &'a str) -> &'a str {
        let mut hosts = self.hosts.lock();
        if hosts.contains(host) {
            return host;
        }
        if hosts.len() < HOSTS_MAX {
            hosts.insert(host.to_owned());
            return host;
        }
        OTHER_HOSTS
    }
}

/// A metric that is in `registry` now. Its name and labels are constants of this file: a test makes
/// them all.
fn registered<M: Collector + Clone + 'static>(
    registry: &Registry,
    metric: prometheus::Result<M>,
) -> M {
    let metric = metric.expect("names and labels are valid");
    registry.register(Box::new(metric.clone())).expect("names differ");
    metric
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_in_the_text() {
        let metrics = Metrics::new();
        metrics.requested("ghcr.io", RequestKind::Blob, Some(200));
        metrics.requested("ghcr.io", RequestKind::Document, None);
        metrics.received("ghcr.io", 12);
        metrics.answered(TimedOperation::Open, Duration::from_millis(2));
        metrics.failed("integrity", "EIO");
        let text = metrics.text(Vec::new());
        for line in [
            r#"tofufs_requests_total{host="ghcr.io",kind="blob",status="200"} 1"#,
            r#"tofufs_requests_total{host="ghcr.io",kind="document",status="none"} 1"#,
            r#"tofufs_received_bytes_total{host="ghcr.io"} 12"#,
            r#"tofufs_operation_seconds_bucket{operation="open",le="0.005"} 1"#,
            r#"tofufs_operation_seconds_bucket{operation="open",le="0.001"} 0"#,
            r#"tofufs_failures_total{errno="EIO",reason="integrity"} 1"#,
            "tofufs_cache_hits_total 0",
        ] {
            assert!(text.lines().any(|have| have == line), "{line} is not in:\n{text}");
        }
    }

    #[test]
    fn hosts_without_end_make_no_series_without_end() {
        let metrics = Metrics::new();
        for host in 0..3 * HOSTS_MAX {
            metrics.received(&format!("{host}.example"), 1);
        }
        metrics.received("0.example", 1);
        let text = metrics.text(Vec::new());
        let series = text.lines().filter(|line| line.starts_with("tofufs_received_bytes_total{"));
        assert_eq!(series.count(), HOSTS_MAX + 1);
        assert!(text.contains(r#"tofufs_received_bytes_total{host="0.example"} 2"#));
        assert!(text.contains(r#"tofufs_received_bytes_total{host="(others)"} 400"#));
    }
}
