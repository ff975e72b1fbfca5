//! How one side of a proxied connection ended.

use std::borrow::Cow;

/// Who reset the connection, if anybody did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DetectedClose {
    /// Nobody.
    #[default]
    Normal,
    /// The peer.
    RemoteReset,
    /// This side.
    LocalReset,
}

impl DetectedClose {
    /// As `%DOWNSTREAM_DETECTED_CLOSE_TYPE%` prints it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::RemoteReset => "RemoteReset",
            Self::LocalReset => "LocalReset",
        }
    }
}

/// How one side ended.
#[derive(Debug, Clone, Default)]
pub struct SideClose {
    /// Why this side closed it: `%DOWNSTREAM_LOCAL_CLOSE_REASON%`, `%UPSTREAM_LOCAL_CLOSE_REASON%`.
    pub local_reason: Option<Cow<'static, str>>,
    /// `%DOWNSTREAM_DETECTED_CLOSE_TYPE%`, `%UPSTREAM_DETECTED_CLOSE_TYPE%`
    pub detected: DetectedClose,
}
