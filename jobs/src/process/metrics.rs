//! Prometheus metrics, on an address of their own.
//!
//! Durations are histograms in seconds whose names end in `_seconds`; every other histogram counts things.

use std::net::SocketAddr;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder};
use tracing::info;

/// From half a millisecond, which a healthy queue stays under, to the ten minutes of a long job.
const SECONDS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0,
    600.0,
];

/// Sizes of batches and the like.
const COUNTS: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, 10_000.0];

/// Why metrics cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("metrics cannot be served at {address}; choose a free address in GANTRY_METRICS_LISTEN, or leave it empty")]
pub struct MetricsError {
    address: SocketAddr,
    source: BuildError,
}

/// Counts from now on, and serves what was counted at `http://<address>/metrics`. Without an address nothing is counted,
/// and counting costs nothing. Needs the Tokio runtime; once in a process.
pub fn install(address: Option<SocketAddr>) -> Result<(), MetricsError> {
    let Some(address) = address else { return Ok(()) };
    let serve = || builder()?.with_http_listener(address).install();
    serve().map_err(|source| MetricsError { address, source })?;
    info!(%address, "Metrics are served at http://{address}/metrics");
    Ok(())
}

fn builder() -> Result<PrometheusBuilder, BuildError> {
    PrometheusBuilder::new()
        .set_buckets(COUNTS)?
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use metrics::{counter, histogram, with_local_recorder};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[test]
    fn durations_fall_into_buckets_of_seconds_and_sizes_into_buckets_of_counts() {
        let recorder = builder().unwrap().build_recorder();
        with_local_recorder(&recorder, || {
            histogram!("wait_seconds").record(0.0004);
            histogram!("batch_jobs").record(300.0);
        });
        let text = recorder.handle().render();
        for line in [
            "wait_seconds_bucket{le=\"0.0005\"} 1\n",
            "wait_seconds_bucket{le=\"600\"} 1\n",
            "batch_jobs_bucket{le=\"200\"} 0\n",
            "batch_jobs_bucket{le=\"500\"} 1\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
    }

    #[tokio::test]
    async fn metrics_are_served_over_http() {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (recorder, serving) = builder().unwrap().with_http_listener(address).build().unwrap();
        tokio::spawn(serving);
        with_local_recorder(&recorder, || counter!("jobs_total").increment(3));

        let mut connection = tokio::net::TcpStream::connect(address).await.unwrap();
        connection.write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.0 200 OK") && answer.contains("jobs_total 3\n"), "{answer}");
    }

    #[tokio::test]
    async fn an_address_in_use_is_said_with_the_variable() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let error = install(Some(taken.local_addr().unwrap())).unwrap_err();
        assert!(error.to_string().contains("GANTRY_METRICS_LISTEN"), "{error}");
        assert!(install(None).is_ok());
    }
}
