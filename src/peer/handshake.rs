//! The handshake: Bitcoin's `version` and `verack`, each once, nothing before them.
//!
//! | state | `version` | `verack` | anything else |
//! |---|---|---|---|
//! | version wanted | answer → verack wanted | refuse | refuse |
//! | verack wanted | refuse | up → ready | refuse |
//! | ready | refuse | refuse | dispatch |
//!
//! Who dialled speaks first. Answering a `version` is `verack`, and for who was dialled its own `version` before it.

use rockpool_net::wire::message::Command;

/// How far a peer's handshake is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Its `version` has not come.
    VersionWanted,
    /// Its `version` was answered, its `verack` has not come.
    VerackWanted,
    /// Done.
    Ready,
}

/// What to do with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send what our side owes for its `version`.
    Answer,
    /// The peer is up.
    Up,
    /// The message is for the session.
    Dispatch,
}

/// What this message does in this state: the next state and what is to be done, or why it is refused.
pub fn step(state: State, command: Command) -> Result<(State, Step), &'static str> {
    match (state, command) {
        (State::VersionWanted, Command::Version) => Ok((State::VerackWanted, Step::Answer)),
        (State::VersionWanted, Command::Verack) => Err("verack before version"),
        (State::VersionWanted, _) => Err("a message before version"),
        (State::VerackWanted, Command::Version) | (State::Ready, Command::Version) => Err("a second version"),
        (State::VerackWanted, Command::Verack) => Ok((State::Ready, Step::Up)),
        (State::VerackWanted, _) => Err("a message before verack"),
        (State::Ready, Command::Verack) => Err("a second verack"),
        (State::Ready, _) => Ok((State::Ready, Step::Dispatch)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_two_steps_lead_to_ready() {
        let mut legal = Vec::new();
        for state in [State::VersionWanted, State::VerackWanted] {
            for command in Command::ALL {
                if let Ok(next) = step(state, command) {
                    legal.push((state, command, next));
                }
            }
        }
        let wanted = [
            (State::VersionWanted, Command::Version, (State::VerackWanted, Step::Answer)),
            (State::VerackWanted, Command::Verack, (State::Ready, Step::Up)),
        ];
        assert_eq!(legal, wanted);
    }

    #[test]
    fn when_ready_all_but_the_handshake_is_for_the_session() {
        for command in Command::ALL {
            let handshake = matches!(command, Command::Version | Command::Verack);
            let next = step(State::Ready, command);
            assert_eq!(next.is_err(), handshake, "{command}");
            assert!(next.is_err() || next == Ok((State::Ready, Step::Dispatch)));
        }
    }
}
