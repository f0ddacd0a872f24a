//! `--proxy-access-log`: one line per request, written by a thread of its own behind a bounded queue.
//!
//! ```text
//!  request over ──try_send──▶ queue (8192) ──▶ thread ──▶ stdout or file
//!                  └─ full: counted, not waited for
//! ```

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use llmd_proxy::{AccessLog, Ended, Record};
use prometheus::{IntCounter, Registry};
use serde::Serialize;
use tokio::sync::oneshot;

mod destination;

pub use destination::Destination;

/// Lines that wait for the writer.
const QUEUE: usize = 8192;

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessLogFormat {
    /// One JSON object.
    Json,
    /// The fields of [`AccessLogFormat::Json`] in their order, with a dash for those that are null.
    Text,
}

/// Registers the count of lost lines, which is there with and without a log.
pub fn register_dropped(registry: &Registry) -> Result<IntCounter, prometheus::Error> {
    let help =
        "Lines of the built-in proxy's access log that were not written: the writer was too slow, or failed.";
    let dropped = IntCounter::new("llmd_proxy_access_log_dropped_total", help)?;
    registry.register(Box::new(dropped.clone()))?;
    Ok(dropped)
}

/// Resolves when the writer has ended.
pub type Written = oneshot::Receiver<()>;

/// Starts the writer, which ends when the last clone of the log is dropped and all lines are written.
///
/// # Errors
/// When there is no thread for it.
pub fn start(
    format: AccessLogFormat,
    output: Destination,
    dropped: IntCounter,
) -> io::Result<(AccessLog, Written)> {
    let (sender, receiver) = sync_channel(QUEUE);
    let (ended, written) = oneshot::channel();
    let lost = dropped.clone();
    thread::Builder::new()
        .name("access-log".to_owned())
        .spawn(move || {
            write(format, output, &receiver, &lost);
            // Nobody waits for a writer whose server failed.
            let _ = ended.send(());
        })?;
    Ok((queue(sender, dropped), written))
}

fn queue(sender: SyncSender<(SystemTime, Record)>, dropped: IntCounter) -> AccessLog {
    Arc::new(move |record| {
        if sender.try_send((SystemTime::now(), record)).is_err() {
            dropped.inc();
        }
    })
}

fn write(
    format: AccessLogFormat,
    output: Destination,
    lines: &Receiver<(SystemTime, Record)>,
    lost: &IntCounter,
) {
    let mut output = io::BufWriter::new(output);
    while let Ok(first) = lines.recv() {
        output.get_mut().follow();
        // One write for what is there already.
        for (ended, record) in std::iter::once(first).chain(lines.try_iter().take(QUEUE)) {
            let line = Line::of(&record, ended);
            let written = match format {
                AccessLogFormat::Json => serde_json::to_writer(&mut output, &line).map_err(io::Error::from),
                AccessLogFormat::Text => line.write_text(&mut output),
            };
            if written.and_then(|()| output.write_all(b"\n")).is_err() {
                lost.inc();
            }
        }
        if let Err(error) = output.flush() {
            tracing::warn!(%error, "the access log cannot be written");
        }
    }
}

/// The fields of a line, in their order.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    client: String,
    method: &'a str,
    path: &'a str,
    protocol: String,
    tls: bool,
    status: Option<u16>,
    bytes: u64,
    first_ms: Option<f64>,
    took_ms: f64,
    endpoint: Option<String>,
    request_id: Option<&'a str>,
    ended: &'static str,
}

impl<'a> Line<'a> {
    fn of(record: &'a Record, ended: SystemTime) -> Self {
        Self {
            time: utc(ended.duration_since(UNIX_EPOCH).unwrap_or_default()),
            client: record.peer.to_string(),
            method: record.method.as_str(),
            path: &record.path,
            protocol: format!("{:?}", record.version),
            tls: record.is_secure,
            status: record.status.map(|status| status.as_u16()),
            bytes: record.sent,
            first_ms: record.first.map(milliseconds),
            took_ms: milliseconds(record.took),
            endpoint: record.target.map(|target| target.to_string()),
            request_id: record.request_id.as_deref(),
            ended: match record.ended {
                Ended::Complete => "complete",
                Ended::ClientGone => "client_gone",
                Ended::Broken => "broken",
            },
        }
    }

    /// What clients choose is quoted, so that a line stays a line.
    fn write_text(&self, output: &mut impl Write) -> io::Result<()> {
        let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        write!(
            output,
            "{} {} {} {:?} {} {} {} {} {} {} {} {} {}",
            self.time,
            self.client,
            self.method,
            self.path,
            self.protocol,
            if self.tls { "tls" } else { "plain" },
            or_dash(self.status.map(|status| status.to_string())),
            self.bytes,
            or_dash(self.first_ms.map(|first| first.to_string())),
            self.took_ms,
            or_dash(self.endpoint.clone()),
            or_dash(self.request_id.map(|id| format!("{id:?}"))),
            self.ended,
        )
    }
}

/// To microseconds.
fn milliseconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}

/// RFC 3339 in UTC, to milliseconds.
fn utc(since_epoch: Duration) -> String {
    let (days, seconds) = (since_epoch.as_secs() / 86_400, since_epoch.as_secs() % 86_400);
    // Years begin in March here, so that the day that some have more is their last one. An era has 400 years.
    let day = days + 719_468;
    let (era, day_of_era) = (day / 146_097, day % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let milliseconds = since_epoch.subsec_millis();
    format!("{year:04}-{month:02}-{day_of_month:02}T{hour:02}:{minute:02}:{second:02}.{milliseconds:03}Z")
}

#[cfg(test)]
mod tests {
    use http::{Method, StatusCode, Version};

    use super::*;

    fn record() -> Record {
        Record {
            peer: [192, 0, 2, 7].into(),
            method: Method::POST,
            path: "/v1/chat/completions".to_owned(),
            version: Version::HTTP_2,
            is_secure: true,
            status: Some(StatusCode::OK),
            sent: 1234,
            first: Some(Duration::from_micros(1500)),
            took: Duration::from_millis(20),
            target: Some(([10, 0, 0, 1], 8000).into()),
            request_id: Some("id\" 1".to_owned()),
            ended: Ended::Complete,
        }
    }

    #[test]
    fn lines_have_all_fields_and_stay_lines() {
        let ended = UNIX_EPOCH + Duration::from_millis(1_709_210_096_007);
        let record = record();
        let line = Line::of(&record, ended);
        assert_eq!(
            serde_json::to_string(&line).unwrap(),
            r#"{"time":"2024-02-29T12:34:56.007Z","client":"192.0.2.7","method":"POST","path":"/v1/chat/completions","protocol":"HTTP/2.0","tls":true,"status":200,"bytes":1234,"first_ms":1.5,"took_ms":20.0,"endpoint":"10.0.0.1:8000","request_id":"id\" 1","ended":"complete"}"#
        );
        let mut text = Vec::new();
        line.write_text(&mut text).unwrap();
        assert_eq!(
            String::from_utf8(text).unwrap(),
            r#"2024-02-29T12:34:56.007Z 192.0.2.7 POST "/v1/chat/completions" HTTP/2.0 tls 200 1234 1.5 20 10.0.0.1:8000 "id\" 1" complete"#
        );
    }

    #[test]
    fn dates_are_right_at_the_ends_of_months_and_years() {
        for (seconds, date) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, "2000-02-28T23:59:59.000Z"),
            (951_868_800, "2000-03-01T00:00:00.000Z"),
            (1_798_761_599, "2026-12-31T23:59:59.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(utc(Duration::from_secs(seconds)), date);
        }
    }

    #[test]
    fn a_full_queue_loses_lines_and_counts_them() {
        let (sender, receiver) = sync_channel(1);
        let dropped = register_dropped(&Registry::new()).unwrap();
        let log = queue(sender, dropped.clone());
        (0..3).for_each(|_| log(record()));
        assert_eq!(dropped.get(), 2);
        drop(receiver);
        log(record());
        assert_eq!(dropped.get(), 3, "a writer that ended loses them too");
    }
}
