//! Asking on the terminal for what an argument did not give. A value is not shown while it is typed: it would
//! stay on the screen and in the terminal's memory.

use std::fmt::Display;
use std::io::{self, BufRead, IsTerminal, Write};

use protocol::{Name, Schema};

use crate::input::{SecretText, patient_name, value_record};

/// How often one question is put before the answer is given up.
const TRIES: usize = 3;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PromptError {
    /// Nobody can be asked.
    #[error(
        "{0} is missing and there is no terminal to ask on: give NAME and VALUE as arguments, or run in a terminal"
    )]
    NoTerminal(&'static str),
    /// The input ended.
    #[error("{0} is missing: the input ended before an answer came")]
    Ended(&'static str),
    /// No answer could be used.
    #[error("{what} is missing: none of {TRIES} answers could be used; the last one: {last}")]
    GaveUp {
        /// What was asked for.
        what: &'static str,
        /// What was wrong with the last answer.
        last: String,
    },
    /// The terminal failed.
    #[error("cannot ask for {what}: {cause}")]
    Terminal {
        /// What was asked for.
        what: &'static str,
        /// What the system said.
        cause: io::Error,
    },
}

/// Asks for a patient's name.
///
/// # Errors
/// [`PromptError`] if nobody can be asked, or after three answers that are no name.
pub(crate) fn name() -> Result<Name, PromptError> {
    Asker::on_terminal("the patient's name")?
        .ask("Name of the patient: ", Echo::Shown, |text| patient_name(text.trim()))
}

/// Asks for the value, or values, of a patient; what is returned fits `schema`.
///
/// # Errors
/// [`PromptError`] if nobody can be asked, or after three answers that do not fit.
pub(crate) fn value(name: &Name, schema: &Schema) -> Result<SecretText, PromptError> {
    Asker::on_terminal("the value")?.value(name, schema)
}

/// Whether somebody can be asked.
pub(crate) fn can_ask() -> bool {
    io::stdin().is_terminal()
}

#[derive(Clone, Copy)]
enum Echo {
    Shown,
    Hidden,
}

/// Puts one question; `None` is the end of the input.
type Put<'a> = Box<dyn FnMut(&str, Echo) -> io::Result<Option<SecretText>> + 'a>;

struct Asker<'a> {
    what: &'static str,
    put: Put<'a>,
}

impl Asker<'_> {
    fn on_terminal(what: &'static str) -> Result<Self, PromptError> {
        if can_ask() { Ok(Self { what, put: Box::new(put_on_terminal) }) } else { Err(PromptError::NoTerminal(what)) }
    }

    fn value(self, name: &Name, schema: &Schema) -> Result<SecretText, PromptError> {
        let columns: Vec<_> = schema.columns.iter().map(|column| column.name.as_str()).collect();
        let question = match columns[..] {
            [one] => format!("{one} of {name} (not shown): "),
            _ => format!("{} of {name}, separated by commas (not shown): ", columns.join(", ")),
        };
        let what = |text: &str| value_record(text, schema).map(|_| text.to_owned().into());
        self.ask(&question, Echo::Hidden, what)
    }

    fn ask<T, E: Display>(
        mut self,
        question: &str,
        echo: Echo,
        read: impl Fn(&str) -> Result<T, E>,
    ) -> Result<T, PromptError> {
        let what = self.what;
        let mut question = question.to_owned();
        let mut last = String::new();
        for _ in 0..TRIES {
            let answer = (self.put)(&question, echo).map_err(|cause| PromptError::Terminal { what, cause })?;
            match read(answer.ok_or(PromptError::Ended(what))?.expose()) {
                Ok(value) => return Ok(value),
                Err(error) => last = error.to_string(),
            }
            // The next question says what was wrong with the last answer.
            let plain = question.rsplit('\n').next().unwrap_or_default().to_owned();
            question = format!("{last}\n{plain}");
        }
        Err(PromptError::GaveUp { what, last })
    }
}

/// Asks on standard error: standard output is the command's answer.
fn put_on_terminal(question: &str, echo: Echo) -> io::Result<Option<SecretText>> {
    match echo {
        Echo::Hidden => match rpassword::prompt_password(question) {
            Err(cause) if cause.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            answer => answer.map(|text| Some(text.into())),
        },
        Echo::Shown => {
            let mut shown = io::stderr().lock();
            shown.write_all(question.as_bytes())?;
            shown.flush()?;
            let mut line = String::new();
            let read = io::stdin().lock().read_line(&mut line)?;
            Ok((read > 0).then(|| line.into()))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use certs::Study;

    use super::*;
    use crate::profile::Profile;

    /// Asks for a value where `answers` are typed; gives back what was asked, too.
    fn asked(answers: &[&str]) -> (Result<SecretText, PromptError>, Vec<String>) {
        let mut questions = Vec::new();
        let mut answers = answers.iter();
        let put: Put<'_> = Box::new(|question, _| {
            questions.push(question.to_owned());
            Ok(answers.next().map(|text| (*text).to_owned().into()))
        });
        let schema = Profile::standard(&Study::default()).schema;
        let value = Asker { what: "the value", put }.value(&"alice".parse().unwrap(), &schema);
        (value, questions)
    }

    #[test]
    fn a_good_answer_is_taken() {
        let (value, questions) = asked(&["100"]);
        assert_eq!(value.unwrap().expose(), "100");
        assert_eq!(questions, ["value of alice (not shown): "]);
    }

    #[test]
    fn a_bad_answer_is_asked_again() {
        let (value, questions) = asked(&["31x", "31.1234567", "7"]);
        assert_eq!(value.unwrap().expose(), "7");
        assert!(questions[1].contains("no decimal number") && questions[1].ends_with("\nvalue of alice (not shown): "));
        assert!(questions[2].contains("six decimals") && questions[2].matches('\n').count() == 1);
        assert!(!questions.concat().contains("31"));
    }

    #[test]
    fn three_bad_answers_or_an_end_give_up() {
        let (value, questions) = asked(&["x", "y", "z", "7"]);
        let refused = value.unwrap_err().to_string();
        assert!(refused.contains("none of 3 answers") && questions.len() == 3, "{refused}");
        assert!(matches!(asked(&["x"]).0, Err(PromptError::Ended("the value"))));
    }
}
