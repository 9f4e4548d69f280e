//! What others change while a kubelet runs: it follows, or puts it right.

mod node;
