//! What a process asks of the system for itself: files enough, and that nobody finds its keys afterwards.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Hundreds of patients in one process need more than the usual 1,024 files.
pub fn raise_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!(%error, "the limit on open files stays as it is");
    }
}

/// For a process that holds keys: it leaves no core dump, also where dumps go to a program, no other process of its user
/// may look into its memory, and its memory is kept out of swap where the system lets it lock as much as it likes.
pub fn keep_to_itself() {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = setrlimit(Resource::Core, none) {
        tracing::warn!(%error, "a crash may leave a core dump with keys in it: set `ulimit -c 0`");
    }
    #[cfg(target_os = "linux")]
    keep_to_itself_on_linux();
}

#[cfg(target_os = "linux")]
fn keep_to_itself_on_linux() {
    use rustix::mm::{MlockAllFlags, mlockall};
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "other processes of this user can look into this one's memory");
    }
    // With a limit, what is asked for beyond it would be refused in the middle of a round.
    if getrlimit(Resource::Memlock).current.is_some() {
        return tracing::debug!("keys may reach the swap: to forbid it, set `ulimit -l unlimited`");
    }
    if let Err(error) = mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT) {
        tracing::debug!(%error, "keys may reach the swap");
    }
}
