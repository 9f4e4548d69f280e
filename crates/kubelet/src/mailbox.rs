//! Mailboxes: channels that hold one message for each subject, the newest.
//!
//! Whoever sends is a callback, which can neither wait nor drop what it brings. So the bound is in the subjects: the newest
//! message about one is all that a receiver needs, and there are only so many subjects.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// A message about something: a later one about the same takes the place of an earlier one.
pub(crate) trait Keyed {
    /// What a message may be about.
    type Subject: Clone + Eq + Hash;

    /// What this message is about.
    fn subject(&self) -> Self::Subject;
}

/// The mailbox of one receiver. Cheap to clone; all clones are the same.
pub(crate) struct Mailbox<M: Keyed>(Arc<Inner<M>>);

struct Inner<M: Keyed> {
    messages: Mutex<Messages<M>>,
    sent: Notify,
}

/// The messages, and the order of their subjects. A subject keeps its place while its message is replaced, so that one of
/// which there is always something new does not wait behind all others.
struct Messages<M: Keyed> {
    newest: HashMap<M::Subject, M>,
    order: VecDeque<M::Subject>,
}

impl<M: Keyed> Clone for Mailbox<M> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<M: Keyed> Mailbox<M> {
    /// An empty mailbox.
    pub(crate) fn new() -> Self {
        let messages = Messages { newest: HashMap::new(), order: VecDeque::new() };
        Self(Arc::new(Inner { messages: Mutex::new(messages), sent: Notify::new() }))
    }

    /// Sends a message. Nobody reads what is sent to a receiver that has ended.
    pub(crate) fn send(&self, message: M) {
        let subject = message.subject();
        let mut messages = self.0.messages.lock();
        if messages.newest.insert(subject.clone(), message).is_none() {
            messages.order.push_back(subject);
        }
        drop(messages);
        self.0.sent.notify_one();
    }

    /// The next message, if there is one.
    pub(crate) fn try_recv(&self) -> Option<M> {
        let mut messages = self.0.messages.lock();
        let subject = messages.order.pop_front()?;
        messages.newest.remove(&subject)
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

    impl Keyed for (char, u8) {
        type Subject = char;

        fn subject(&self) -> char {
            self.0
        }
    }

    #[tokio::test]
    async fn the_newest_of_each_subject_arrives() {
        let mailbox = Mailbox::new();
        let messages = [('a', 1), ('b', 1), ('a', 2), ('c', 1), ('a', 3)];
        messages.into_iter().for_each(|message| mailbox.send(message));
        let received = [mailbox.recv().await, mailbox.recv().await, mailbox.recv().await];
        assert_eq!((received, mailbox.try_recv()), ([('a', 3), ('b', 1), ('c', 1)], None));
        let sender = mailbox.clone();
        let (received, ()) = tokio::join!(mailbox.recv(), async { sender.send(('d', 1)) });
        assert_eq!(received, ('d', 1), "whoever waits is woken");
    }

    #[test]
    fn it_holds_no_more_than_there_are_subjects() {
        let mailbox = Mailbox::new();
        (0..100_000_u32).for_each(|number| mailbox.send((if number % 2 == 0 { 'a' } else { 'b' }, 0)));
        let messages = mailbox.0.messages.lock();
        assert_eq!((messages.newest.len(), messages.order.len()), (2, 2));
    }
}
