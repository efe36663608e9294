use std::env;
use std::fmt::Display;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// The least time between two lines.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

const BAR: &str = "{prefix} {bar:30} {human_pos}/{human_len} {elapsed} < {eta} {wide_msg}";

/// Shows how far long work has come: as a bar if stderr is a terminal, else as plain lines on stderr, at most one in
/// five seconds and always the last.
///
/// The environment variable `GRADUS_PROGRESS` changes that: `lines`, `off`, or `bar`, which is the default and still
/// means lines where no bar can be drawn. Showing progress never fails: what cannot be written is lost.
///
/// ```
/// use gradus_train::Progress;
///
/// let mut progress = Progress::new(3, "training");
/// for epoch in 1..=3 {
///     let loss = 1.0 / f64::from(epoch);
///     progress.message(format_args!("loss {loss:.3}"));
///     progress.step(1);
/// }
/// progress.finish_with("test accuracy 97.1 %");
/// ```
#[must_use = "progress ends when it is dropped"]
pub struct Progress(View);

enum View {
    Hidden,
    Bar(ProgressBar),
    Lines(Lines),
}

impl Progress {
    /// Starts to show work of `total` steps under this name.
    pub fn new(total: u64, label: impl Into<String>) -> Self {
        let label = label.into();
        match env::var("GRADUS_PROGRESS").as_deref() {
            Ok("off") => Self::hidden(),
            Ok("lines") => Self::to_writer(total, label, io::stderr()),
            _ => {
                let bar = ProgressBar::new(total);
                if bar.is_hidden() {
                    return Self::to_writer(total, label, io::stderr());
                }
                Self(View::Bar(bar.with_style(bar_style()).with_prefix(label)))
            }
        }
    }

    /// Writes plain lines to `out`, wherever that leads and whatever the environment says.
    ///
    /// ```
    /// use gradus_train::Progress;
    ///
    /// let mut progress = Progress::to_writer(100, "reading", std::io::stdout());
    /// progress.step(100);
    /// progress.finish_with("no errors"); // reading: 100/100 (100 %), 0:00, no errors
    /// ```
    pub fn to_writer(total: u64, label: impl Into<String>, out: impl Write + Send + Sync + 'static) -> Self {
        Self(View::Lines(Lines::new(total, label.into(), Box::new(out), Instant::now())))
    }

    /// Shows nothing.
    pub fn hidden() -> Self {
        Self(View::Hidden)
    }

    /// Another `count` steps are done.
    pub fn step(&mut self, count: u64) {
        match &mut self.0 {
            View::Hidden => {}
            View::Bar(bar) => bar.inc(count),
            View::Lines(lines) => lines.step(count, Instant::now()),
        }
    }

    /// What to show beside the count from now on, such as the loss.
    pub fn message(&mut self, message: impl Display) {
        match &mut self.0 {
            View::Hidden => {}
            View::Bar(bar) => bar.set_message(message.to_string()),
            View::Lines(lines) => lines.message = message.to_string(),
        }
    }

    /// Writes a line that stays, above the bar or between the lines: the result of an epoch, say.
    pub fn note(&mut self, note: impl Display) {
        match &mut self.0 {
            View::Hidden => {}
            View::Bar(bar) => bar.println(note.to_string()),
            View::Lines(lines) => lines.write(&note.to_string()),
        }
    }

    /// Ends with this message. The work counts as finished even if steps are left, as when training stops early.
    pub fn finish_with(mut self, message: impl Display) {
        self.message(message);
        match &mut self.0 {
            View::Hidden => {}
            View::Bar(bar) => bar.abandon(),
            View::Lines(lines) => lines.report(Instant::now()),
        }
    }
}

/// Work that ends early, with an error for instance, leaves its last state to see.
impl Drop for Progress {
    fn drop(&mut self) {
        match &mut self.0 {
            View::Hidden => {}
            View::Bar(bar) => bar.abandon(),
            View::Lines(lines) if lines.reported != Some(lines.done) => lines.report(Instant::now()),
            View::Lines(_) => {}
        }
    }
}

fn bar_style() -> ProgressStyle {
    let style = ProgressStyle::with_template(BAR);
    style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("━╸ ")
}

struct Lines {
    out: Box<dyn Write + Send + Sync>,
    label: String,
    message: String,
    total: u64,
    done: u64,
    /// The count in the last line about progress.
    reported: Option<u64>,
    started: Instant,
    last_line: Instant,
}

impl Lines {
    fn new(total: u64, label: String, out: Box<dyn Write + Send + Sync>, now: Instant) -> Self {
        Self { out, label, message: String::new(), total, done: 0, reported: None, started: now, last_line: now }
    }

    fn step(&mut self, count: u64, now: Instant) {
        self.done = self.done.saturating_add(count);
        if now.duration_since(self.last_line) >= LINE_INTERVAL {
            self.report(now);
        }
    }

    fn report(&mut self, now: Instant) {
        let elapsed = now.duration_since(self.started);
        let mut line = format!("{}: {}/{}", self.label, self.done, self.total);
        if self.total > 0 {
            line += &format!(" ({:.0} %)", 100.0 * self.done as f64 / self.total as f64);
        }
        line += &format!(", {}", clock(elapsed));
        if (1..self.total).contains(&self.done) {
            let steps_left = (self.total - self.done) as f64;
            let left = elapsed.as_secs_f64() * steps_left / self.done as f64;
            if let Ok(left) = Duration::try_from_secs_f64(left) {
                line += &format!(" < {}", clock(left));
            }
        }
        if !self.message.is_empty() {
            line += &format!(", {}", self.message);
        }
        self.write(&line);
        self.reported = Some(self.done);
        self.last_line = now;
    }

    fn write(&mut self, line: &str) {
        // Work must not fail because nobody can watch it.
        let _ = writeln!(self.out, "{line}").and_then(|()| self.out.flush());
    }
}

/// A duration as `m:ss` or `h:mm:ss`.
fn clock(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match hours {
        0 => format!("{minutes}:{seconds:02}"),
        _ => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Log {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    #[test]
    fn one_line_in_five_seconds() {
        let log = Log::default();
        let start = Instant::now();
        let mut lines = Lines::new(200, "train".into(), Box::new(log.clone()), start);
        for second in 1..=12 {
            lines.message = format!("loss {second}");
            lines.step(10, start + Duration::from_secs(second));
        }
        let expected = "train: 50/200 (25 %), 0:05 < 0:15, loss 5\n\
                        train: 100/200 (50 %), 0:10 < 0:10, loss 10\n";
        assert_eq!(log.text(), expected);
    }

    #[test]
    fn quick_work_is_one_line() {
        let log = Log::default();
        let mut progress = Progress::to_writer(3, "eval", log.clone());
        (0..3).for_each(|_| progress.step(1));
        assert_eq!(log.text(), "");
        progress.finish_with("accuracy 0.97");
        assert_eq!(log.text(), "eval: 3/3 (100 %), 0:00, accuracy 0.97\n");
    }

    #[test]
    fn work_that_breaks_off_still_has_a_last_line() {
        let log = Log::default();
        let mut progress = Progress::to_writer(0, "scan", log.clone());
        progress.note("a note");
        progress.step(7);
        drop(progress);
        assert_eq!(log.text(), "a note\nscan: 7/0, 0:00\n");
    }

    #[test]
    fn more_steps_than_announced() {
        let log = Log::default();
        let mut progress = Progress::to_writer(2, "x", log.clone());
        progress.step(u64::MAX);
        progress.step(1);
        progress.finish_with("");
        assert!(log.text().starts_with("x: 18446744073709551615/2 ("));
        let mut hidden = Progress::hidden();
        hidden.step(1);
        hidden.finish_with("done");
    }

    #[test]
    fn clocks() {
        assert_eq!(clock(Duration::from_secs(65)), "1:05");
        assert_eq!(clock(Duration::from_secs(36_000 + 62)), "10:01:02");
    }

    #[test]
    fn the_bar_style_is_valid() {
        assert!(ProgressStyle::with_template(BAR).is_ok());
    }
}
