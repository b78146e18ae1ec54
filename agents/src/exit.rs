//! How a command ends: 0 done, 2 wrong use or bad input, 3 the round was aborted, 1 anything else.

/// A round, or a session before its first round, ended without an answer: why, and what would help.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the round was aborted: {0}")]
pub struct Aborted(pub String);

/// The command was asked to stop before it had an answer.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("stopped before there was an answer")]
pub struct Stopped;

/// Nobody reads the results any more, as after `ward watch | head`: it ends quietly.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("nobody reads standard output any more")]
pub struct Unheard;

/// Wrong use that has no error type of its own.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// Ends with [`Usage`].
macro_rules! usage {
    ($($text:tt)*) => {
        return Err($crate::exit::Usage(format!($($text)*)).into())
    };
}
pub(crate) use usage;

/// The exit code that `error` means.
pub fn code(error: &anyhow::Error) -> i32 {
    if error.chain().any(|cause| cause.is::<Aborted>() || cause.is::<Stopped>()) {
        3
    } else if is_cut_off(error) || error.chain().any(is_bad_input) {
        2
    } else {
        1
    }
}

/// Whether the broker lists the party no longer that the error is of: it refuses it as it would one that starts.
pub fn is_cut_off(error: &anyhow::Error) -> bool {
    let by_call = |cause: &(dyn std::error::Error + 'static)| match cause.downcast_ref() {
        Some(nats::BoardError::Call(call)) => matches!(call, nats::CallError::CutOff { .. }),
        _ => matches!(cause.downcast_ref(), Some(nats::CallError::CutOff { .. })),
    };
    let by_link = |cause: &(dyn std::error::Error + 'static)| {
        matches!(cause.downcast_ref(), Some(nats::LinkError::NotListed { .. }))
    };
    error.chain().any(|cause| by_call(cause) || by_link(cause))
}

/// Whether the user can mend this by saying something else, or by setting something right.
fn is_bad_input(cause: &(dyn std::error::Error + 'static)) -> bool {
    cause.is::<Usage>()
        || cause.is::<protocol::PlanError>()
        || cause.is::<protocol::OfferError>()
        || cause.is::<protocol::RecordError>()
        || cause.is::<protocol::NameError>()
        || cause.is::<protocol::SnapshotError>()
        || cause.is::<crate::enrol::EnrolError>()
        || cause.is::<crate::home::HomeError>()
        || cause.is::<crate::input::InputError>()
        || cause.is::<crate::table::TableError>()
        || cause.is::<crate::lock::ClaimError>()
        || cause.is::<crate::profile::ProfileError>()
        || cause.is::<crate::prompt::PromptError>()
        || cause.is::<certs::CredentialsError>()
        || cause.is::<certs::AuthorityError>()
        || cause.is::<certs::CertificateError>()
        || cause.is::<certs::AnchorError>()
        || cause.is::<certs::RequestError>()
        || cause.is::<certs::HostError>()
        || cause.is::<certs::KeyError>()
        || cause.is::<nats::InstallError>()
        || cause.is::<nats::LinkError>()
        || matches!(
            cause.downcast_ref::<nats::BrokerError>(),
            Some(nats::BrokerError::PortInUse { .. } | nats::BrokerError::Leftover { .. })
        )
}
