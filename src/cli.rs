//! The command line: every flag of Envoy 1.40. Flags that have no effect here are accepted and warned about
//! once, because launchers pass them without asking.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{Parser, ValueEnum};

/// `--mode`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Default)]
pub enum Mode {
    /// Serves traffic.
    #[default]
    Serve,
    /// Checks the configuration, says in one line what is wrong, and exits.
    Validate,
    /// Initialises the server as far as its listeners, then exits.
    #[value(name = "init_only")]
    InitOnly,
}

/// `--local-address-ip-version`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Default)]
pub enum IpVersion {
    /// IPv4
    #[default]
    V4,
    /// IPv6
    V6,
}

/// `--drain-strategy`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Default)]
pub enum DrainStrategy {
    /// Connections are asked to close with a probability that rises over the drain time.
    #[default]
    Gradual,
    /// All connections are asked to close at once.
    Immediate,
}

/// Envoy's flags.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "nuncio",
    version,
    about = "An Envoy-compatible xDS data plane",
    disable_help_flag = false
)]
pub struct Cli {
    /// Bootstrap file: .yaml, .json, .pb_text or .pb.
    #[arg(short = 'c', long = "config-path")]
    pub config_path: Option<PathBuf>,
    /// Bootstrap as YAML text, merged over the file's.
    #[arg(long)]
    pub config_yaml: Option<String>,
    /// What to do: serve, validate or init_only.
    #[arg(long, value_enum, default_value_t)]
    pub mode: Mode,
    /// Number of worker threads; default: the CPUs this process may use (affinity and cgroup quota).
    #[arg(long)]
    pub concurrency: Option<usize>,
    /// Unknown fields in the static configuration are ignored (and warned about).
    #[arg(long, visible_alias = "allow-unknown-fields")]
    pub allow_unknown_static_fields: bool,
    /// Unknown fields in dynamic configuration reject the resource.
    #[arg(long)]
    pub reject_unknown_dynamic_fields: bool,
    /// Unknown fields in dynamic configuration are ignored without a warning.
    #[arg(long)]
    pub ignore_unknown_dynamic_fields: bool,
    /// Deprecated fields are not logged.
    #[arg(long)]
    pub skip_deprecated_logs: bool,
    /// Writes the admin address there once it is bound.
    #[arg(long)]
    pub admin_address_path: Option<PathBuf>,
    /// Address family of this host's own address.
    #[arg(long, value_enum, default_value_t)]
    pub local_address_ip_version: IpVersion,
    /// Log level: trace, debug, info, warning, error, critical, off.
    #[arg(short = 'l', long, default_value = "info")]
    pub log_level: String,
    /// Log levels of components: upstream:debug,config:trace.
    #[arg(long, default_value = "")]
    pub component_log_level: String,
    /// Cluster of this node (`node.cluster`).
    #[arg(long)]
    pub service_cluster: Option<String>,
    /// Id of this node (`node.id`).
    #[arg(long)]
    pub service_node: Option<String>,
    /// Zone of this node (`node.locality.zone`).
    #[arg(long)]
    pub service_zone: Option<String>,
    /// Milliseconds between flushes of access log files.
    #[arg(long, default_value_t = 10_000)]
    pub file_flush_interval_msec: u64,
    /// Kilobytes after which an access log file is flushed.
    #[arg(long, default_value_t = 64)]
    pub file_flush_min_size_kb: u64,
    /// Seconds a drained connection has to end by itself.
    #[arg(long, default_value_t = 600)]
    pub drain_time_s: u64,
    /// How connections are asked to close.
    #[arg(long, value_enum, default_value_t)]
    pub drain_strategy: DrainStrategy,
    /// Seconds after which the parent ends, at a hot restart.
    #[arg(long, default_value_t = 900)]
    pub parent_shutdown_time_s: u64,
    /// Log file; default: standard error.
    #[arg(long)]
    pub log_path: Option<PathBuf>,
    #[arg(long, hide = true)]
    log_format: Option<String>,
    #[arg(long, hide = true)]
    log_format_escaped: bool,
    #[arg(long, hide = true)]
    log_format_prefix_with_location: Option<String>,
    #[arg(long, hide = true)]
    enable_fine_grain_logging: bool,
    /// Tells apart proxies of one machine, each of which can be restarted hot.
    #[arg(long, default_value_t = 0)]
    pub base_id: u32,
    /// Chooses a free base id; not for a restart epoch above 0.
    #[arg(long)]
    pub use_dynamic_base_id: bool,
    /// Starts without a parent where none answers, whatever the restart epoch.
    #[arg(long)]
    pub skip_hot_restart_on_no_parent: bool,
    /// Statistics of the parent are not taken over.
    #[arg(long)]
    pub skip_hot_restart_parent_stats: bool,
    /// Writes the base id there.
    #[arg(long)]
    pub base_id_path: Option<PathBuf>,
    /// Hot restart: 0 for the first process, one more for each that follows it.
    #[arg(long, default_value_t = 0)]
    pub restart_epoch: u32,
    /// No process can follow this one.
    #[arg(long)]
    pub disable_hot_restart: bool,
    #[arg(long, hide = true)]
    enable_mutex_tracing: bool,
    #[arg(long, hide = true)]
    cpuset_threads: bool,
    #[arg(long, hide = true)]
    disable_extensions: Option<String>,
    #[arg(long, hide = true)]
    enable_core_dump: bool,
    /// Hot restart's socket: `@name` for an abstract one, else the beginning of a path.
    #[arg(long, default_value = "@envoy_domain_socket")]
    pub socket_path: String,
    /// Permissions of hot restart's socket file, octal; 0 leaves the umask's.
    #[arg(long, default_value = "0", value_parser = octal)]
    pub socket_mode: u32,
    #[arg(long, hide = true)]
    stats_tag: Vec<String>,
    /// Prints the version that two processes must share to follow each other.
    #[arg(long)]
    pub hot_restart_version: bool,
    #[arg(long, hide = true)]
    bootstrap_version: Option<u32>,
}

impl Cli {
    /// Reads the command line. Envoy ignores what stands after `--`; a flag given twice is an error there, too.
    pub fn read(args: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let before = args.into_iter().take_while(|a| a != "--");
        Self::try_parse_from(before)
    }

    /// Flags that were given and have no effect here.
    pub fn without_effect(&self) -> Vec<&'static str> {
        let given = [
            (self.log_format.is_some(), "--log-format"),
            (self.log_format_escaped, "--log-format-escaped"),
            (
                self.log_format_prefix_with_location.is_some(),
                "--log-format-prefix-with-location",
            ),
            (self.enable_fine_grain_logging, "--enable-fine-grain-logging"),
            (self.enable_mutex_tracing, "--enable-mutex-tracing"),
            (self.cpuset_threads, "--cpuset-threads"),
            (self.disable_extensions.is_some(), "--disable-extensions"),
            (self.enable_core_dump, "--enable-core-dump"),
            (!self.stats_tag.is_empty(), "--stats-tag"),
        ];
        given
            .into_iter()
            .filter(|(set, _)| *set)
            .map(|(_, name)| name)
            .collect()
    }

    /// The drain time.
    pub fn drain_time(&self) -> Duration {
        Duration::from_secs(self.drain_time_s)
    }
}

fn octal(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err(format!("invalid socket-mode '{text}'")),
    }
}
