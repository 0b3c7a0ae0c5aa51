//! Shutdown as a value that every task waits for.

use tokio::sync::watch;

/// Says stop.
#[derive(Debug)]
pub struct Stopper(watch::Sender<bool>);

/// Hears it.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<bool>);

/// Makes the two ends.
pub fn pair() -> (Stopper, Stop) {
    let (sender, receiver) = watch::channel(false);
    (Stopper(sender), Stop(receiver))
}

impl Stopper {
    /// Says stop, to all who listen and all who will.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Stop {
    /// Waits until it is said; a dropped [`Stopper`] says it too.
    pub async fn requested(&mut self) {
        let _stopped_or_dropped = self.0.wait_for(|stop| *stop).await.is_ok();
    }
}
