//! One output stream of a process: a thread reads it, line by line, and wakes whoever waits.

use std::io::{BufRead as _, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use super::PATIENCE;

/// What a process writes to one of its streams.
pub struct Stream {
    shared: Arc<Shared>,
    /// Where the last wait for a line ended.
    heard: usize,
}

#[derive(Default)]
struct Shared {
    written: Mutex<Written>,
    more: Condvar,
}

#[derive(Default)]
struct Written {
    /// Whole lines only, but for the last of a stream that has ended.
    text: String,
    ended: bool,
}

/// Why what was waited for did not come.
#[derive(Debug)]
pub enum Silent {
    /// The stream ended first.
    Ended,
    /// [`PATIENCE`] ended first.
    Late,
}

impl Stream {
    /// Listens to `source` until it ends.
    pub fn listen(source: impl Read + Send + 'static) -> Self {
        let shared = Arc::new(Shared::default());
        let listener = Arc::clone(&shared);
        std::thread::spawn(move || {
            let mut lines = BufReader::new(source);
            let mut line = Vec::new();
            while lines.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                listener.change(|written| written.text.push_str(&String::from_utf8_lossy(&line)));
                line.clear();
            }
            listener.change(|written| written.ended = true);
        });
        Self { shared, heard: 0 }
    }

    /// Waits for a line that contains `text`, from where the last such wait ended; the line.
    pub fn next_line(&mut self, text: &str) -> Result<String, Silent> {
        let from = self.heard;
        let (line, heard) = self.shared.wait(|written| {
            let mut end = from;
            written.text[from..].split_inclusive('\n').find_map(|line| {
                end += line.len();
                line.contains(text).then(|| (line.trim_end().to_owned(), end))
            })
        })?;
        self.heard = heard;
        Ok(line)
    }

    /// Waits until `text` has come `times` times since the start.
    pub fn has(&self, text: &str, times: usize) -> Result<(), Silent> {
        self.shared.wait(|written| (written.text.matches(text).count() >= times).then_some(()))
    }

    /// Waits for the end of the stream.
    pub fn ends(&self) -> Result<(), Silent> {
        self.shared.wait(|written| written.ended.then_some(()))
    }

    /// What has come until now.
    pub fn so_far(&self) -> String {
        self.shared.written.lock().unwrap().text.clone()
    }
}

impl Shared {
    fn change(&self, change: impl FnOnce(&mut Written)) {
        change(&mut self.written.lock().unwrap());
        self.more.notify_all();
    }

    fn wait<T>(&self, found: impl Fn(&Written) -> Option<T>) -> Result<T, Silent> {
        let deadline = Instant::now() + PATIENCE;
        let mut written = self.written.lock().unwrap();
        loop {
            if let Some(found) = found(&written) {
                return Ok(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if written.ended {
                return Err(Silent::Ended);
            }
            if left.is_zero() {
                return Err(Silent::Late);
            }
            written = self.more.wait_timeout(written, left).unwrap().0;
        }
    }
}
