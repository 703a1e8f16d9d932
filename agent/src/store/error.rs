//! What can go wrong with the state, in words that say what to do next.

use std::{io, path::PathBuf};

/// `std::result::Result` with the store's own error.
pub(crate) type Result<T> = std::result::Result<T, Error>;

/// Why the store cannot be opened or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Two writers would each believe that theirs are the only numbers.
    #[error("{dir}: another agent{holder} uses this state; stop it, or give this one a directory of its own")]
    Held { dir: PathBuf, holder: String },
    /// Who can write into the directory can replace the database.
    #[error("{path}: others than its owner can write into it (mode {mode:04o}); `chmod go-w` it first")]
    Writable { path: PathBuf, mode: u32 },
    /// Another user owns what only the agent may own.
    #[error("{path}: belongs to user {owner}, but the agent runs as user {own}; `chown` it first")]
    Owner { path: PathBuf, owner: u32, own: u32 },
    /// A link, a device, a FIFO: somebody prepared a trap, or made a mistake.
    #[error("{path}: is not {wanted} (symbolic links are not followed); move it away")]
    Kind { path: PathBuf, wanted: &'static str },
    /// A downgrade. The newer agent's state must stay as it is.
    #[error(
        "{path}: {by} wrote it in version {found} of the format, this agent knows versions up to {known}; \
         it was left as it is: run the newer agent again, or move the file away to begin anew"
    )]
    Future { path: PathBuf, by: String, found: u32, known: u32 },
    /// Some other program's database.
    #[error("{path}: is a database of another program; it was left as it is: move it away")]
    Foreign { path: PathBuf },
    /// Even opening needs some room, for the index of the WAL.
    #[error("{dir}: the disk is full; make room: the state in it is as it was")]
    Full {
        dir: PathBuf,
        #[source]
        source: Box<Error>,
    },
    /// The system said no.
    #[error("{path}: cannot {doing}")]
    Io {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// SQLite said no.
    #[error("state database: cannot {doing}")]
    Sql {
        doing: &'static str,
        #[source]
        source: rusqlite::Error,
    },
}

impl Error {
    /// For `map_err`.
    pub(super) fn sql(doing: &'static str) -> impl FnOnce(rusqlite::Error) -> Self {
        move |source| Self::Sql { doing, source }
    }

    /// For `map_err`.
    pub(super) fn io<E: Into<io::Error>>(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(E) -> Self {
        move |source| Self::Io { doing, path: path.into(), source: source.into() }
    }

    /// The file itself is at fault, not the disk, the rights or us.
    pub(super) fn is_damage(&self) -> bool {
        matches!(self, Self::Sql { source, .. } if is_damage(source))
    }
}

/// The file itself is at fault.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    matches!(error.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase))
}

/// One job is at fault: the same job will fail again, and others need not. Whatever is not known to
/// be the fault of the disk or the file counts as such: one bad job must not hold up all others.
pub(super) fn is_own_fault(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{
        CannotOpen, DatabaseBusy, DatabaseCorrupt, DatabaseLocked, DiskFull, FileLockingProtocolFailed,
        NoLargeFileSupport, NotADatabase, OperationInterrupted, OutOfMemory, PermissionDenied, ReadOnly,
        SchemaChanged, SystemIoFailure,
    };
    !matches!(
        error.sqlite_error_code(),
        Some(
            CannotOpen
                | DatabaseBusy
                | DatabaseCorrupt
                | DatabaseLocked
                | DiskFull
                | FileLockingProtocolFailed
                | NoLargeFileSupport
                | NotADatabase
                | OperationInterrupted
                | OutOfMemory
                | PermissionDenied
                | ReadOnly
                | SchemaChanged
                | SystemIoFailure
        )
    )
}
