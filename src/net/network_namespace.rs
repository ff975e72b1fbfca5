//! Network namespaces: a socket belongs to that of the thread that made it (`network_namespace_filepath`).

use std::{fs::File, io, os::fd::AsRawFd, sync::Arc, thread};

use super::listen::ListenError;

/// Runs `f` in the namespace behind `path`, on a thread of its own: this one stays where it is whatever happens.
pub(super) fn run_in<T: Send>(
    path: &Arc<str>,
    f: impl FnOnce() -> Result<T, ListenError> + Send,
) -> Result<T, ListenError> {
    let file = File::open(&**path).map_err(|error| ListenError::NamespaceFile {
        path: path.clone(),
        error,
    })?;
    let fd = file.as_raw_fd();
    let refused = |error| ListenError::Namespace {
        path: path.clone(),
        fd,
        error,
    };
    let inside = || {
        // SAFETY: the descriptor is open, and the call changes nothing but the namespace of this thread.
        match unsafe { libc::setns(fd, libc::CLONE_NEWNET) } {
            0 => f(),
            _ => Err(refused(io::Error::last_os_error())),
        }
    };
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("netns".to_owned());
        let running = thread.spawn_scoped(scope, inside).map_err(refused)?;
        running
            .join()
            .unwrap_or_else(|_| Err(refused(io::ErrorKind::Other.into())))
    })
}
