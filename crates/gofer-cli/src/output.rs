//! Results: tables for people, JSON for programs. Colours are for terminals only, and control
//! characters are removed from text that comes from elsewhere.

use std::borrow::Cow;
use std::io::{self, Write as _};

use anstyle::{AnsiColor, Style};
use gofer_net::log::LogWriter;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use unicode_width::UnicodeWidthStr as _;

#[derive(Clone, Copy)]
pub(crate) struct Out {
    pub(crate) json: bool,
}

/// A row of a table, or an object in a JSON array.
pub(crate) trait Row {
    const HEADER: &'static [&'static str];

    fn cells(&self) -> Vec<Cell>;

    fn json(&self) -> Value;
}

pub(crate) struct Cell {
    pub(crate) text: String,
    style: Style,
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self { text: text.into(), style: Style::new() }
    }
}

/// The colour of a status.
#[derive(Clone, Copy)]
pub(crate) enum Health {
    Good,
    Changing,
    Bad,
    Off,
}

impl Cell {
    pub(crate) fn health(text: impl Into<String>, health: Health) -> Self {
        let style = match health {
            Health::Good => Style::new().fg_color(Some(AnsiColor::Green.into())),
            Health::Changing => Style::new().fg_color(Some(AnsiColor::Yellow.into())),
            Health::Bad => Style::new().fg_color(Some(AnsiColor::Red.into())),
            Health::Off => Style::new().dimmed(),
        };
        Self { text: text.into(), style }
    }
}

impl Out {
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    /// A listing, or the sentence `if_empty` without rows.
    pub(crate) fn list<T: Row>(self, rows: &[T], if_empty: &str) -> io::Result<()> {
        if self.json {
            return self.document(&rows.iter().map(Row::json).collect());
        }
        if rows.is_empty() {
            // Not on standard output, so that `wc -l` counts no lines.
            return note(if_empty);
        }
        table(T::HEADER, &rows.iter().map(Row::cells).collect::<Vec<_>>())
    }

    /// One item: a line for each property that is not empty.
    pub(crate) fn details(self, lines: Vec<(&str, Cell)>, json: &Value) -> io::Result<()> {
        if self.json {
            return self.document(json);
        }
        let lines: Vec<_> = lines.into_iter().filter(|(_, cell)| !cell.text.is_empty()).collect();
        let width = lines.iter().map(|(label, _)| label.len()).max().unwrap_or(0);
        let bold = Style::new().bold();
        let mut out = anstream::stdout().lock();
        for (label, Cell { text, style }) in lines {
            let text = visible(&text);
            writeln!(out, "{bold}{label:width$}{bold:#}  {style}{text}{style:#}")?;
        }
        out.flush()
    }

    /// Reports what was done: a sentence, or JSON.
    pub(crate) fn done(self, sentence: &str, json: &Value) -> io::Result<()> {
        if self.json {
            return self.document(json);
        }
        let mut out = anstream::stdout().lock();
        writeln!(out, "{}", visible(sentence))?;
        out.flush()
    }

    /// Lines from elsewhere, such as documentation; nothing with --json.
    pub(crate) fn text(self, text: &str) -> io::Result<()> {
        if self.json {
            return Ok(());
        }
        let mut out = anstream::stdout().lock();
        for line in text.lines() {
            writeln!(out, "{}", visible(line))?;
        }
        out.flush()
    }

    #[allow(clippy::unused_self, reason = "one of the output methods")]
    pub(crate) fn document(self, json: &Value) -> io::Result<()> {
        let mut out = io::stdout().lock();
        serde_json::to_writer_pretty(&mut out, json)?;
        writeln!(out)?;
        out.flush()
    }
}

/// A sentence on standard error, apart from the result.
pub(crate) fn note(sentence: &str) -> io::Result<()> {
    writeln!(anstream::stderr().lock(), "{}", visible(sentence))
}

/// As [`note`], from a core: it goes on if nobody reads its log any more.
pub(crate) fn say(log: &LogWriter, sentence: &str) {
    // Never fails, and takes a line at a time.
    let _ = log.clone().write_all(format!("{}\n", visible(sentence)).as_bytes());
}

/// Columns as wide as their content, two spaces apart, without rules: easy to read and to split.
fn table(header: &[&str], rows: &[Vec<Cell>]) -> io::Result<()> {
    let mut widths: Vec<usize> = header.iter().map(|title| title.width()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(visible(&cell.text).width());
        }
    }
    let mut out = anstream::stdout().lock();
    let mut line = |cells: &mut dyn Iterator<Item = (Cow<'_, str>, Style)>| -> io::Result<()> {
        let mut gap = 0;
        for ((text, style), width) in cells.zip(&widths) {
            if text.is_empty() {
                // No trailing spaces.
                gap += width + 2;
                continue;
            }
            write!(out, "{:gap$}{style}{text}{style:#}", "")?;
            gap = width.saturating_sub(text.width()) + 2;
        }
        writeln!(out)
    };
    let bold = Style::new().bold();
    line(&mut header.iter().map(|title| (Cow::Borrowed(*title), bold)))?;
    for row in rows {
        line(&mut row.iter().map(|cell| (visible(&cell.text), cell.style)))?;
    }
    out.flush()
}

/// Without control characters, which a terminal would interpret, and others that end a line, change
/// its order or cannot be seen.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    let is_unsafe = |it: char| {
        it.is_control()
            || matches!(
                it,
                '\u{200b}'..='\u{200f}'
                    | '\u{2028}'..='\u{202e}'
                    | '\u{2060}'..='\u{2069}'
                    | '\u{feff}'
            )
    };
    if text.contains(is_unsafe) { text.replace(is_unsafe, " ").into() } else { text.into() }
}

/// Unix milliseconds as RFC 3339; `None` for 0, which means never.
pub(crate) fn rfc3339(unix_millis: i64) -> Option<String> {
    if unix_millis == 0 {
        return None;
    }
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_millis) * 1_000_000);
    time.ok()?.format(&Rfc3339).ok()
}

/// The same for tables: whole seconds, `-` for never.
pub(crate) fn moment(unix_millis: i64) -> String {
    rfc3339(unix_millis - unix_millis.rem_euclid(1000)).unwrap_or_else(|| "-".to_owned())
}

/// The name of an enum's value for people: `PIPELINE_STATE_UNKNOWN` is `unknown`.
pub(crate) fn word(name: &str) -> String {
    if name.contains("UNKNOWN") { "unknown".to_owned() } else { name.to_lowercase() }
}

#[cfg(test)]
mod tests;
