//! Work that a client cannot cancel by hanging up.

use tracing::Instrument;

use crate::problem::Problem;

/// Runs `work` to its end even when the client hangs up, and answers what it gave.
///
/// A handler's future is dropped in the middle of any `await` when its connection closes; a
/// statement may then be half sent and a lock be held. So commands run in a task of their own and
/// the handler only waits for the result. The task keeps the request's context, span and
/// admission permit.
///
/// # Errors
/// 500 when the work panics; the panic's text goes to the log only.
pub async fn detached<F, T>(work: F) -> Result<T, Problem>
where
    F: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    let context = crate::context::current();
    let permit = crate::admission::current_permit();
    // Each layer below holds its work twice, as what it captured and as what it awaits. With a
    // pointer that costs nothing; copying whole futures was a quarter of a server's time.
    let work = Box::pin(work);
    let work = async move {
        match context {
            Some(context) => context.scope(work).await,
            None => work.await,
        }
    };
    let work = async move {
        match permit {
            Some(permit) => crate::admission::under(permit, work).await,
            None => work.await,
        }
    };
    tokio::spawn(work.in_current_span()).await.map_err(|error| Problem::internal(&error))
}
