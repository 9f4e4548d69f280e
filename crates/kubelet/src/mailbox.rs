//! Mailboxes: channels in which a later message takes the place of an earlier one that it makes pointless.
//!
//! Whoever sends is a callback, which can neither wait nor drop what it brings. So the bound is in the messages: of each
//! subject, the newest is all that a receiver needs, and there are only so many subjects.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// A message that may take the place of an earlier one.
pub(crate) trait Coalesce {
    /// Whether nobody needs `earlier` any more once this is known.
    fn replaces(&self, earlier: &Self) -> bool;
}

/// The mailbox of one receiver. Cheap to clone; all clones are the same.
pub(crate) struct Mailbox<M>(Arc<Inner<M>>);

struct Inner<M> {
    messages: Mutex<VecDeque<M>>,
    sent: Notify,
}

impl<M> Clone for Mailbox<M> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<M: Coalesce> Mailbox<M> {
    /// An empty mailbox.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Inner { messages: Mutex::default(), sent: Notify::new() }))
    }

    /// Sends a message. Nobody reads what is sent to a receiver that has ended.
    pub(crate) fn send(&self, message: M) {
        let mut messages = self.0.messages.lock();
        messages.retain(|earlier| !message.replaces(earlier));
        messages.push_back(message);
        drop(messages);
        self.0.sent.notify_one();
    }

    /// The next message, if there is one.
    pub(crate) fn try_recv(&self) -> Option<M> {
        self.0.messages.lock().pop_front()
    }

    /// Waits for the next message. For one receiver at a time; dropped, it has taken nothing.
    pub(crate) async fn recv(&self) -> M {
        loop {
            if let Some(message) = self.try_recv() {
                return message;
            }
            self.0.sent.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Coalesce for (char, u8) {
        fn replaces(&self, earlier: &Self) -> bool {
            self.0 == earlier.0
        }
    }

    #[tokio::test]
    async fn the_newest_of_each_subject_arrives() {
        let mailbox = Mailbox::new();
        let messages = [('a', 1), ('b', 1), ('a', 2), ('c', 1), ('a', 3)];
        messages.into_iter().for_each(|message| mailbox.send(message));
        let received = [mailbox.recv().await, mailbox.recv().await, mailbox.recv().await];
        assert_eq!((received, mailbox.try_recv()), ([('b', 1), ('c', 1), ('a', 3)], None));
        let sender = mailbox.clone();
        let (received, ()) = tokio::join!(mailbox.recv(), async { sender.send(('d', 1)) });
        assert_eq!(received, ('d', 1), "whoever waits is woken");
    }
}
