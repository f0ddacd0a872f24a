//! Writes a run to the terminal.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;

use serde::Serialize;
use serde_json::json;

use super::rows::Row;
use super::table;
use crate::events::{Event, Level};

/// Lines of each process that are kept to be shown when it ends.
const TAIL: usize = 12;

/// How a run is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// A live table, on a terminal.
    Table,
    /// One line per event; process output on standard error.
    Plain,
    /// One JSON object per line on standard output.
    Json,
}

impl Output {
    /// The table on a terminal, plain lines elsewhere.
    pub fn for_terminal() -> Self {
        if io::stdout().is_terminal() {
            Self::Table
        } else {
            Self::Plain
        }
    }
}

/// What the user needs to talk to the service.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ready {
    /// OpenAI base URL.
    pub url: String,
    /// A served model.
    pub model: String,
    /// Ready engines.
    pub engines: usize,
    /// Whether clients must send a key.
    pub key: bool,
}

impl Ready {
    /// A request to paste.
    fn curl(&self) -> String {
        let key = if self.key {
            " -H \"Authorization: Bearer $LLMD_API_KEY\""
        } else {
            ""
        };
        let body = json!({
            "model": self.model,
            "stream": true,
            "messages": [{"role": "user", "content": "Say hello"}],
        });
        format!(
            "curl -N {}/chat/completions{key} -H 'Content-Type: application/json' -d '{body}'",
            self.url
        )
    }
}

/// The user's screen.
pub struct Screen {
    output: Output,
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
    drawn: usize,
    last_rows: Vec<Row>,
    tails: BTreeMap<Arc<str>, VecDeque<String>>,
}

impl Screen {
    /// A screen on standard output and error.
    pub fn new(output: Output) -> Self {
        Self::on(output, Box::new(io::stdout()), Box::new(io::stderr()))
    }

    /// A screen on other writers.
    pub fn on(output: Output, out: Box<dyn Write + Send>, err: Box<dyn Write + Send>) -> Self {
        Self {
            output,
            out,
            err,
            drawn: 0,
            last_rows: Vec::new(),
            tails: BTreeMap::new(),
        }
    }

    /// Shows an event. A write error means that nobody looks any more; the run goes on.
    pub fn event(&mut self, event: Event) {
        let _ = self.try_event(event);
    }

    /// Says that the service answers.
    pub fn ready(&mut self, ready: &Ready) {
        let _ = self.try_ready(ready);
    }

    /// Shows the endpoints, when they changed.
    pub fn rows(&mut self, rows: Vec<Row>) {
        if rows != self.last_rows {
            let _ = self.try_rows(rows);
        }
    }

    /// Leaves the terminal clean.
    pub fn close(&mut self) {
        self.drawn = 0;
        let _ = self.out.flush();
    }

    fn try_event(&mut self, event: Event) -> io::Result<()> {
        match (self.output, event) {
            (Output::Json, Event::Log { source, line }) => {
                self.json(&json!({"type": "log", "source": &*source, "line": line}))
            }
            (Output::Json, Event::Note { level, text }) => {
                self.json(&json!({"type": "note", "level": word(level), "text": text}))
            }
            (Output::Json, Event::Ended { source, text }) => {
                self.json(&json!({"type": "note", "level": "warning", "source": &*source, "text": text}))
            }
            (Output::Plain, Event::Log { source, line }) => writeln!(self.err, "[{source}] {line}"),
            (Output::Plain, Event::Note { level, text }) => note(&mut self.err, level, &text),
            (Output::Plain, Event::Ended { text, .. }) => note(&mut self.err, Level::Warning, &text),
            (Output::Table, Event::Log { source, line }) => {
                let tail = self.tails.entry(source).or_default();
                if tail.len() == TAIL {
                    tail.pop_front();
                }
                tail.push_back(line);
                Ok(())
            }
            (Output::Table, Event::Note { level, text }) => {
                self.erase()?;
                note(&mut self.out, level, &text)?;
                self.draw()
            }
            (Output::Table, Event::Ended { source, text }) => {
                self.erase()?;
                note(&mut self.out, Level::Warning, &text)?;
                for line in self.tails.remove(&source).unwrap_or_default() {
                    writeln!(self.out, "  {source} | {line}")?;
                }
                self.draw()
            }
        }
    }

    fn try_ready(&mut self, ready: &Ready) -> io::Result<()> {
        if self.output == Output::Json {
            let mut object = json!({"type": "ready", "curl": ready.curl()});
            if let (Some(target), Ok(serde_json::Value::Object(fields))) =
                (object.as_object_mut(), serde_json::to_value(ready))
            {
                target.extend(fields);
            }
            return self.json(&object);
        }
        self.erase()?;
        let engines = if ready.engines == 1 { "engine" } else { "engines" };
        writeln!(
            self.out,
            "{} serves {} on {} {engines}",
            ready.url, ready.model, ready.engines
        )?;
        writeln!(self.out, "{}", ready.curl())?;
        self.out.flush()?;
        self.draw()
    }

    fn try_rows(&mut self, rows: Vec<Row>) -> io::Result<()> {
        self.last_rows = rows;
        match self.output {
            Output::Json => {
                let rows = json!({"type": "endpoints", "endpoints": self.last_rows});
                self.json(&rows)
            }
            Output::Plain => Ok(()),
            Output::Table => {
                self.erase()?;
                self.draw()
            }
        }
    }

    fn json(&mut self, value: &serde_json::Value) -> io::Result<()> {
        writeln!(self.out, "{value}")?;
        self.out.flush()
    }

    /// Moves above the table and clears it, so that lines can be printed in its place.
    fn erase(&mut self) -> io::Result<()> {
        if self.drawn > 0 {
            write!(self.out, "\x1b[{}F\x1b[J", self.drawn)?;
            self.drawn = 0;
        }
        Ok(())
    }

    fn draw(&mut self) -> io::Result<()> {
        if self.output != Output::Table || self.last_rows.is_empty() {
            return self.out.flush();
        }
        let (width, height) = terminal_size();
        let mut lines = table::lines(&self.last_rows, width);
        lines.truncate(usize::from(height.saturating_sub(2)).max(2));
        self.drawn = lines.len();
        for line in lines {
            writeln!(self.out, "{line}")?;
        }
        self.out.flush()
    }
}

/// Columns and lines. A terminal that does not know its size says 0.
fn terminal_size() -> (u16, u16) {
    match ratatui::crossterm::terminal::size() {
        Ok((width, height)) if width > 0 && height > 0 => (width, height),
        _ => (100, 40),
    }
}

fn note(out: &mut dyn Write, level: Level, text: &str) -> io::Result<()> {
    match level {
        Level::Info => writeln!(out, "{text}"),
        Level::Warning | Level::Error => writeln!(out, "{}: {text}", word(level)),
    }
}

fn word(level: Level) -> &'static str {
    match level {
        Level::Info => "info",
        Level::Warning => "warning",
        Level::Error => "error",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Sink {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn screen(output: Output) -> (Screen, Sink, Sink) {
        let (out, err) = (Sink::default(), Sink::default());
        (
            Screen::on(output, Box::new(out.clone()), Box::new(err.clone())),
            out,
            err,
        )
    }

    fn ready() -> Ready {
        Ready {
            url: "http://127.0.0.1:8080/v1".into(),
            model: "a/b".into(),
            engines: 2,
            key: false,
        }
    }

    #[test]
    fn plain_output_has_the_url_and_a_curl_on_stdout_and_logs_on_stderr() {
        let (mut screen, out, err) = screen(Output::Plain);
        screen.event(Event::Log {
            source: "a-0".into(),
            line: "hello".into(),
        });
        screen.ready(&ready());
        screen.rows(vec![Row::default()]);
        let text = out.text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].starts_with("http://127.0.0.1:8080/v1 serves a/b on 2 engines"));
        assert!(lines[1].starts_with("curl -N http://127.0.0.1:8080/v1/chat/completions"));
        assert_eq!(err.text(), "[a-0] hello\n");
    }

    #[test]
    fn json_output_is_one_object_per_line() {
        let (mut screen, out, _) = screen(Output::Json);
        screen.ready(&ready());
        screen.rows(vec![Row::default()]);
        screen.rows(vec![Row::default()]);
        screen.event(Event::Note {
            level: Level::Error,
            text: "x".into(),
        });
        let objects: Vec<serde_json::Value> = out
            .text()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let types: Vec<&str> = objects
            .iter()
            .map(|object| object["type"].as_str().unwrap())
            .collect();
        assert_eq!(
            types,
            ["ready", "endpoints", "note"],
            "unchanged endpoints are not repeated"
        );
        assert_eq!(objects[0]["url"], "http://127.0.0.1:8080/v1");
    }

    #[test]
    fn the_table_is_redrawn_in_place_and_the_end_of_a_process_shows_its_last_lines() {
        let (mut screen, out, _) = screen(Output::Table);
        screen.rows(vec![Row::default()]);
        for number in 0..40 {
            screen.event(Event::Log {
                source: "a-0".into(),
                line: format!("line {number}"),
            });
        }
        screen.event(Event::Ended {
            source: "a-0".into(),
            text: "a-0 ended with code 1; restarting".into(),
        });
        let text = out.text();
        assert!(
            text.contains("\x1b[2F\x1b[J"),
            "the header and one row are erased: {text:?}"
        );
        assert!(
            text.contains("a-0 | line 39") && text.contains("a-0 | line 28") && !text.contains("line 27")
        );
        assert!(text.trim_end().lines().count() > 14);
    }
}
