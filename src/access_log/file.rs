//! Log files: one buffer per thread and file, one writer thread for all.
//!
//! A line is copied into its thread's buffer under a lock that nobody else wants but the writer, once per
//! flush. The writer wakes at `--file-flush-interval-msec`, or when a buffer passes
//! `--file-flush-min-size-kb`. A file that cannot be written keeps at most [`MAX_BUFFERED`] bytes per
//! thread; further lines are dropped and counted.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io::{self, Write},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use crate::{
    stats::{Stats, Store},
    stats_block,
};

/// Most bytes a thread keeps for a file that does not take them.
const MAX_BUFFERED: usize = 16 * 1024 * 1024;

stats_block! {
    /// `filesystem.*`
    pub struct FileStats {
        counter write_buffered, "Lines put into a buffer";
        counter write_completed, "Writes to files";
        counter write_failed, "Writes that failed";
        counter flushed_by_timer, "Flushes because the interval passed";
        counter reopen_failed, "Files that could not be opened again";
        gauge write_total_buffered, "Bytes in buffers";
    }
}

/// All open log files.
pub struct LogFiles {
    files: Mutex<HashMap<String, Weak<LogFile>>>,
    writer: Arc<Writer>,
    threads: usize,
    stats: Stats<FileStats>,
}

struct Writer {
    wake: Mutex<bool>,
    bell: Condvar,
    interval: Duration,
    flush_at: usize,
    running: AtomicBool,
}

/// One open file.
pub struct LogFile {
    path: String,
    file: Mutex<File>,
    buffers: Box<[Mutex<Vec<u8>>]>,
    writer: Arc<Writer>,
    stats: Stats<FileStats>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LogFiles {
    /// No files yet; `threads` is the number of threads that may log (workers and control).
    pub fn new(store: &Arc<Store>, threads: usize, interval: Duration, flush_at: usize) -> Self {
        Self {
            files: Mutex::default(),
            writer: Arc::new(Writer {
                wake: Mutex::new(false),
                bell: Condvar::new(),
                interval,
                flush_at,
                running: AtomicBool::new(false),
            }),
            threads: threads.max(1),
            stats: store.scope("filesystem.").block(),
        }
    }

    /// Opens a file for appending, or hands out the open one of this path.
    pub fn open(self: &Arc<Self>, path: &str) -> io::Result<Arc<LogFile>> {
        let mut files = lock(&self.files);
        if let Some(file) = files.get(path).and_then(Weak::upgrade) {
            return Ok(file);
        }
        let file = Arc::new(LogFile {
            path: path.to_owned(),
            file: Mutex::new(append_to(path)?),
            buffers: (0..self.threads).map(|_| Mutex::default()).collect(),
            writer: self.writer.clone(),
            stats: self.stats.clone(),
        });
        files.retain(|_, f| f.strong_count() > 0);
        files.insert(path.to_owned(), Arc::downgrade(&file));
        drop(files);
        if !self.writer.running.swap(true, Ordering::Relaxed) {
            let files = Arc::downgrade(self);
            let writer = self.writer.clone();
            thread::Builder::new()
                .name("access-log".into())
                .spawn(move || write_loop(&files, &writer))?;
        }
        Ok(file)
    }

    /// Writes out everything that is buffered.
    pub fn flush(&self) {
        let files: Vec<_> = lock(&self.files).values().filter_map(Weak::upgrade).collect();
        for file in files {
            file.flush();
        }
    }

    /// Opens every file again (SIGUSR1, `/reopen_logs`): what rotated files away wants the new ones filled.
    pub fn reopen(&self) {
        let files: Vec<_> = lock(&self.files).values().filter_map(Weak::upgrade).collect();
        for file in files {
            file.flush();
            match append_to(&file.path) {
                Ok(new) => *lock(&file.file) = new,
                Err(error) => {
                    self.stats.local().reopen_failed.inc();
                    tracing::warn!(path = %file.path, %error, "a log file could not be opened again");
                }
            }
        }
    }
}

fn append_to(path: &str) -> io::Result<File> {
    match path {
        // Opening these by name fails where they are sockets; the descriptors themselves always work.
        "/dev/stdout" => Ok(std::os::fd::AsFd::as_fd(&io::stdout()).try_clone_to_owned()?.into()),
        "/dev/stderr" => Ok(std::os::fd::AsFd::as_fd(&io::stderr()).try_clone_to_owned()?.into()),
        path => OpenOptions::new().create(true).append(true).open(path),
    }
}

fn write_loop(files: &Weak<LogFiles>, writer: &Writer) {
    loop {
        let woken = {
            let wake = lock(&writer.wake);
            let (mut wake, _) = writer
                .bell
                .wait_timeout_while(wake, writer.interval, |w| !*w)
                .unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *wake)
        };
        let Some(files) = files.upgrade() else { return };
        if !woken {
            files.stats.local().flushed_by_timer.inc();
        }
        files.flush();
    }
}

impl LogFile {
    /// Buffers a line, already with its line end.
    pub fn write(&self, line: &[u8]) {
        let index = crate::stats::current_shard().min(self.buffers.len().saturating_sub(1));
        let Some(buffer) = self.buffers.get(index) else { return };
        let mut buffer = lock(buffer);
        if buffer.len() + line.len() > MAX_BUFFERED {
            self.stats.local().write_failed.inc();
            return;
        }
        buffer.extend_from_slice(line);
        let stats = self.stats.local();
        stats.write_buffered.inc();
        stats.write_total_buffered.add(line.len() as u64);
        let full = buffer.len() >= self.writer.flush_at;
        drop(buffer);
        if full {
            *lock(&self.writer.wake) = true;
            self.writer.bell.notify_one();
        }
    }

    fn flush(&self) {
        for buffer in &self.buffers {
            let lines = std::mem::take(&mut *lock(buffer));
            if lines.is_empty() {
                continue;
            }
            let stats = self.stats.local();
            stats.write_total_buffered.sub(lines.len() as u64);
            match lock(&self.file).write_all(&lines) {
                Ok(()) => stats.write_completed.inc(),
                Err(error) => {
                    stats.write_failed.inc();
                    tracing::warn!(path = %self.path, %error, "access log lines were lost");
                }
            }
        }
    }
}
