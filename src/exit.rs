//! How a command ends: the three exit codes, each with its one line.

use std::fmt;

use rockpool_store::error::StoreError;

use crate::config::ConfigError;

/// Why a command did not end well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The user's mistake: exit code 2, and a line that says what to do.
    Mistake(String),
    /// The node's own fault: exit code 3.
    Fault(String),
}

impl Failure {
    /// The process' exit code.
    pub fn code(&self) -> u8 {
        match self {
            Failure::Mistake(_) => 2,
            Failure::Fault(_) => 3,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Failure::Mistake(why) | Failure::Fault(why)) = self;
        // One line, whatever an outside error says.
        f.write_str(&why.replace(char::is_control, " "))
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Failure {
        Failure::Mistake(error.to_string())
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        let why = error.to_string();
        match error {
            StoreError::InUse(_) | StoreError::WrongNetwork { .. } | StoreError::WrongFormat { .. } | StoreError::Open { .. } => {
                Failure::Mistake(why)
            }
            StoreError::NoSpace => Failure::Mistake(format!("{why}: make room and start again")),
            StoreError::Damaged(_) | StoreError::Disk(_) => Failure::Fault(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line_with_its_code() {
        let failure = Failure::from(StoreError::InUse("/d\nx".into()));
        assert_eq!(failure.code(), 2);
        assert!(failure.to_string().starts_with("data directory /d x is in use"), "{failure}");
        assert_eq!(Failure::from(StoreError::Disk("torn".into())).code(), 3);
        assert_eq!(Failure::from(StoreError::NoSpace).code(), 2);
        assert_eq!(Failure::from(ConfigError::NoHome).code(), 2);
    }
}
