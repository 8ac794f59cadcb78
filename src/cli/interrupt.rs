//! Ctrl-C and SIGTERM, as a value that a run can watch.

use std::io;

use tokio::sync::watch;

/// A value that turns true at the first Ctrl-C or SIGTERM. The program itself goes on: whoever watches ends in order.
pub(super) fn watch() -> io::Result<watch::Receiver<bool>> {
    let (interrupted, receiver) = watch::channel(false);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    // Registered here, so that a signal that comes right after this function is not lost.
    let signals = {
        let _context = runtime.enter();
        signals()?
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            signals.await;
            interrupted.send_replace(true);
            // The receiver must never see the sender go.
            std::future::pending::<()>().await;
        });
    })?;
    Ok(receiver)
}

#[cfg(unix)]
fn signals() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "the unix form can fail")]
fn signals() -> io::Result<impl Future<Output = ()>> {
    Ok(async {
        drop(tokio::signal::ctrl_c().await);
    })
}
