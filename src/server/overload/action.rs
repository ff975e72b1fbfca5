//! The actions that Envoy knows by name.

/// `envoy.overload_actions.*`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Action {
    /// Requests are answered 503.
    StopAcceptingRequests,
    /// Connections end with their next response.
    DisableHttpKeepalive,
    /// Listeners leave connections in the kernel's queue; when saturated only.
    StopAcceptingConnections,
    /// New connections are closed at once.
    RejectIncomingConnections,
    /// Free memory is given back to the system; when saturated only.
    ShrinkHeap,
    /// Timers run out sooner.
    ReduceTimeouts,
    /// Streams that hold much memory are reset.
    ResetHighMemoryStream,
    /// Idle HTTP/3 sessions are closed; there are none here.
    CloseIdleHttpConnections,
}

impl Action {
    /// How many there are.
    pub const COUNT: usize = 8;

    const ALL: [Self; Self::COUNT] = [
        Self::StopAcceptingRequests,
        Self::DisableHttpKeepalive,
        Self::StopAcceptingConnections,
        Self::RejectIncomingConnections,
        Self::ShrinkHeap,
        Self::ReduceTimeouts,
        Self::ResetHighMemoryStream,
        Self::CloseIdleHttpConnections,
    ];

    /// Envoy's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::StopAcceptingRequests => "envoy.overload_actions.stop_accepting_requests",
            Self::DisableHttpKeepalive => "envoy.overload_actions.disable_http_keepalive",
            Self::StopAcceptingConnections => "envoy.overload_actions.stop_accepting_connections",
            Self::RejectIncomingConnections => "envoy.overload_actions.reject_incoming_connections",
            Self::ShrinkHeap => "envoy.overload_actions.shrink_heap",
            Self::ReduceTimeouts => "envoy.overload_actions.reduce_timeouts",
            Self::ResetHighMemoryStream => "envoy.overload_actions.reset_high_memory_stream",
            Self::CloseIdleHttpConnections => "envoy.overload_actions.close_idle_http_connections",
        }
    }

    /// The action of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.name() == name)
    }
}
