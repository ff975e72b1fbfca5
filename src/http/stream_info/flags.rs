//! Response flags: one table of short and long names (`%RESPONSE_FLAGS%`, `%RESPONSE_FLAGS_LONG%`).

use std::fmt;

macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident $short:literal $long:literal;)*) => {
        /// Why a response is what it is, or why there is none; in the order Envoy prints them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Flag { $($(#[$doc])* $name),* }

        impl Flag {
            /// Every flag, in order.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// Envoy's short name.
            pub fn short(self) -> &'static str {
                match self { $(Self::$name => $short),* }
            }

            /// Envoy's long name.
            pub fn long(self) -> &'static str {
                match self { $(Self::$name => $long),* }
            }

            /// The flag of a short name, as `response_flag_filter` lists them.
            pub fn from_short(short: &str) -> Option<Self> {
                match short { $($short => Some(Self::$name),)* _ => None }
            }
        }
    };
}

flags! {
    /// Local service failed its health check, in addition to 503.
    FailedLocalHealthCheck "LH" "FailedLocalHealthCheck";
    /// No healthy host in the cluster, in addition to 503.
    NoHealthyUpstream "UH" "NoHealthyUpstream";
    /// Upstream request timeout, in addition to 504.
    UpstreamRequestTimeout "UT" "UpstreamRequestTimeout";
    /// Connection local reset, in addition to 503.
    LocalReset "LR" "LocalReset";
    /// Upstream remote reset, in addition to 503.
    UpstreamRemoteReset "UR" "UpstreamRemoteReset";
    /// Upstream connection failure, in addition to 503.
    UpstreamConnectionFailure "UF" "UpstreamConnectionFailure";
    /// Upstream connection termination, in addition to 503.
    UpstreamConnectionTermination "UC" "UpstreamConnectionTermination";
    /// Upstream overflow (circuit breaking), in addition to 503.
    UpstreamOverflow "UO" "UpstreamOverflow";
    /// No route for the request, in addition to 404, or no filter chain for the connection.
    NoRouteFound "NR" "NoRouteFound";
    /// Delayed by fault injection.
    DelayInjected "DI" "DelayInjected";
    /// Aborted by fault injection.
    FaultInjected "FI" "FaultInjected";
    /// Limited by the rate limit filter, in addition to 429.
    RateLimited "RL" "RateLimited";
    /// Denied by the external authorization service.
    UnauthorizedExternalService "UAEX" "UnauthorizedExternalService";
    /// Rejected because of an error in the rate limit service.
    RateLimitServiceError "RLSE" "RateLimitServiceError";
    /// Rejected because a strictly-checked header was wrong, in addition to 400.
    InvalidEnvoyRequestHeaders "IH" "InvalidEnvoyRequestHeaders";
    /// Downstream connection termination.
    DownstreamConnectionTermination "DC" "DownstreamConnectionTermination";
    /// The retry limit was exceeded.
    UpstreamRetryLimitExceeded "URX" "UpstreamRetryLimitExceeded";
    /// Stream idle timeout, in addition to 408 or 504.
    StreamIdleTimeout "SI" "StreamIdleTimeout";
    /// The downstream request had an HTTP protocol error.
    DownstreamProtocolError "DPE" "DownstreamProtocolError";
    /// The upstream request reached its maximum stream duration.
    UpstreamMaxStreamDurationReached "UMSDR" "UpstreamMaxStreamDurationReached";
    /// Served from a cache filter.
    ResponseFromCacheFilter "RFCF" "ResponseFromCacheFilter";
    /// Ended because a filter's configuration did not arrive in time.
    NoFilterConfigFound "NFCF" "NoFilterConfigFound";
    /// Exceeded `max_connection_duration` or `max_downstream_connection_duration`.
    DurationTimeout "DT" "DurationTimeout";
    /// The upstream response had an HTTP protocol error.
    UpstreamProtocolError "UPE" "UpstreamProtocolError";
    /// Upstream cluster not found.
    NoClusterFound "NC" "NoClusterFound";
    /// Ended by the overload manager.
    OverloadManager "OM" "OverloadManagerTerminated";
    /// Ended by a DNS resolution failure.
    DnsResolutionFailed "DF" "DnsResolutionFailed";
    /// Dropped by `drop_overload`, in addition to 503.
    DropOverload "DO" "DropOverload";
    /// The downstream reset the stream.
    DownstreamRemoteReset "DR" "DownstreamRemoteReset";
    /// Dropped by a `drop_overload` of 100 %.
    UnconditionalDropOverload "UDO" "UnconditionalDropOverload";
}

/// A set of flags, in the order in which they were set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ResponseFlags {
    /// A bit per flag.
    set: u64,
    /// The flags as bytes, one more than their number, the first in the lowest byte. Past eight none are added: no
    /// stream fails in so many ways.
    order: u64,
}

impl ResponseFlags {
    /// Adds a flag.
    pub fn set(&mut self, flag: Flag) {
        if self.has(flag) {
            return;
        }
        self.set |= 1 << flag as u8;
        let at = (64 - self.order.leading_zeros()).next_multiple_of(8);
        if at < 64 {
            self.order |= (u64::from(flag as u8) + 1) << at;
        }
    }

    /// Whether the flag is in the set.
    pub fn has(self, flag: Flag) -> bool {
        self.set & (1 << flag as u8) != 0
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.set == 0
    }

    /// The flags as they were set, which is how Envoy lists them.
    pub fn iter(self) -> impl Iterator<Item = Flag> {
        let bytes = self.order.to_le_bytes().into_iter().take_while(|b| *b > 0);
        bytes.filter_map(|b| Flag::ALL.get(usize::from(b) - 1).copied())
    }
}

/// Short names joined by commas, `-` when there are none.
impl fmt::Display for ResponseFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("-");
        }
        for (i, flag) in self.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            f.write_str(flag.short())?;
        }
        Ok(())
    }
}
