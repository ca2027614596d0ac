//! The way into the mailbox.

use std::sync::Arc;

use crossbeam_channel::{Sender, TrySendError};
use mio::Waker;

use crate::hub::io::Mail;

/// Posts answers to the reactor's mailbox and wakes it.
#[derive(Debug)]
pub struct Postbox<A> {
    sender: Sender<Vec<Mail<A>>>,
    waker: Arc<Waker>,
}

impl<A> Postbox<A> {
    pub(super) fn new(sender: Sender<Vec<Mail<A>>>, waker: Arc<Waker>) -> Postbox<A> {
        Postbox { sender, waker }
    }

    /// Posts what one step of a stage answered, as one message, and wakes the reactor once. Never waits. A full mailbox is a defect of the
    /// caller's account of tickets: the mail comes back. So it does when the reactor is gone.
    pub fn post(&self, mail: Vec<Mail<A>>) -> Result<(), Vec<Mail<A>>> {
        if mail.is_empty() {
            return Ok(());
        }
        self.sender.try_send(mail).map_err(TrySendError::into_inner)?;
        // The message is in: without the wake it would wait for the idle maximum, no longer.
        if let Err(error) = self.waker.wake() {
            log::warn!("the reactor could not be woken: {error}");
        }
        Ok(())
    }
}

impl<A> Clone for Postbox<A> {
    fn clone(&self) -> Postbox<A> {
        Postbox { sender: self.sender.clone(), waker: Arc::clone(&self.waker) }
    }
}
