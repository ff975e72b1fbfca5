//! A child process on a core of its own: started pinned, measured from `/proc`, ended by its pid.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// Ticks per second of `utime` and `stime` in `/proc/PID/stat`; 100 on every Linux that matters.
const TICKS: f64 = 100.0;

/// A child that ends with this value, or with its parent.
pub struct Process {
    child: Child,
    name: String,
}

/// Processor time used so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cpu {
    /// All of it, in seconds, from the scheduler's own nanosecond count.
    pub total: f64,
    /// User space, in seconds, in steps of a tick.
    pub user: f64,
    /// Kernel, in seconds, in steps of a tick.
    pub system: f64,
}

impl Cpu {
    /// What was used since an earlier reading.
    pub fn since(self, earlier: Cpu) -> Cpu {
        Cpu {
            total: self.total - earlier.total,
            user: self.user - earlier.user,
            system: self.system - earlier.system,
        }
    }
}

/// The command pinned to `core`. `setpriv` makes the kernel end it when this process dies early.
pub fn pinned(core: usize, program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "taskset", "-c", &core.to_string()]);
    command.arg(program).stdin(Stdio::null());
    command
}

impl Process {
    /// Starts the command; its output goes to `log`.
    pub fn start(name: &str, mut command: Command, log: &Path) -> Result<Process> {
        let out = File::create(log).with_context(|| format!("{}", log.display()))?;
        command.stdout(out.try_clone()?).stderr(out);
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        Ok(Process {
            child,
            name: name.to_string(),
        })
    }

    /// Fails once the child has ended, so that waiting for it to become ready is not in vain.
    pub fn check_alive(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended: {status}", self.name),
        }
    }

    /// Processor time of all threads of the child.
    pub fn cpu(&self) -> Result<Cpu> {
        let proc = format!("/proc/{}", self.child.id());
        let mut nanos = 0u64;
        for task in fs::read_dir(format!("{proc}/task"))? {
            // A thread may end between the listing and the read; what it used is then lost.
            let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else {
                continue;
            };
            nanos += text.split(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
        }
        let stat = fs::read_to_string(format!("{proc}/stat"))?;
        // The name in parentheses may hold spaces; utime and stime are the 12th and 13th after it.
        let after = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let ticks = |n: usize| after.split_whitespace().nth(n).and_then(|t| t.parse::<f64>().ok());
        Ok(Cpu {
            total: nanos as f64 / 1e9,
            user: ticks(11).unwrap_or(0.0) / TICKS,
            system: ticks(12).unwrap_or(0.0) / TICKS,
        })
    }

    /// Proportional set size in KB.
    pub fn pss_kb(&self) -> Result<f64> {
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.child.id()))?;
        text.lines()
            .find_map(|line| line.strip_prefix("Pss:"))
            .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
            .context("no Pss in smaps_rollup")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // By this child's own pid, and reaped, so nothing outlives a run.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs `ready` until it says yes, the child ends, or `limit` has passed.
pub fn wait_until(process: &mut Process, limit: Duration, mut ready: impl FnMut() -> bool) -> Result<Duration> {
    let start = std::time::Instant::now();
    while !ready() {
        process.check_alive()?;
        if start.elapsed() > limit {
            bail!("{} is not ready after {limit:?}", process.name);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(start.elapsed())
}
