//! The table that the run ends with.

use std::fmt;

/// Lines in the order in which they were measured.
#[derive(Default)]
pub(crate) struct Table(Vec<Line>);

struct Line {
    what: String,
    reach: String,
    seen: String,
    baseline: String,
    reached: Option<bool>,
}

impl Table {
    /// A figure that is promised to stay within a bound.
    pub(crate) fn promise(
        &mut self,
        what: impl Into<String>,
        reach: impl Into<String>,
        seen: impl Into<String>,
        baseline: impl Into<String>,
        reached: bool,
    ) {
        self.push(what.into(), reach.into(), seen.into(), baseline.into(), Some(reached));
    }

    /// A figure without a target.
    pub(crate) fn note(
        &mut self,
        what: impl Into<String>,
        seen: impl Into<String>,
        baseline: impl Into<String>,
    ) {
        self.push(what.into(), String::new(), seen.into(), baseline.into(), None);
    }

    /// The figures that are out of bounds.
    #[must_use]
    pub(crate) fn missed(&self) -> Vec<&str> {
        let missed = self.0.iter().filter(|line| line.reached == Some(false));
        missed.map(|line| line.what.as_str()).collect()
    }

    fn push(
        &mut self,
        what: String,
        reach: String,
        seen: String,
        baseline: String,
        reached: Option<bool>,
    ) {
        // Sections take minutes: each figure is shown at once.
        eprintln!("  {what}: {seen} (baseline {baseline}, reach {reach})");
        self.0.push(Line { what, reach, seen, baseline, reached });
    }
}

/// Markdown.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| what | reach | seen | baseline | reached |")?;
        writeln!(f, "| --- | --- | --- | --- | --- |")?;
        for line in &self.0 {
            let reached = match line.reached {
                Some(true) => "yes",
                Some(false) => "**no**",
                None => "",
            };
            let Line { what, reach, seen, baseline, .. } = line;
            writeln!(f, "| {what} | {reach} | {seen} | {baseline} | {reached} |")?;
        }
        Ok(())
    }
}
