//! Data for a patient whose agent runs already: a second `ward patient NAME VALUE` leaves it in the patient's folder
//! and waits for the agent's answer.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use protocol::{Record, Snapshot};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::drafts::{self, OF_RUNNING};
use crate::exit::Usage;

/// How often either side looks.
pub const LOOK: Duration = Duration::from_millis(50);
/// How long an agent may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// After so long nobody writes or reads a draft or an answer any more.
const ABANDONED: Duration = Duration::from_secs(60);

/// What another process is still writing.
const DRAFT: &str = "draft";
/// What it hands over.
const OFFER: &str = "offer";
/// What it is told.
const ANSWER: &str = "answer";

/// Data under a label.
#[derive(Serialize, Deserialize)]
pub struct Offer {
    /// The label.
    pub snapshot: Snapshot,
    /// The data.
    pub record: Record,
}

/// Hands `offer` to the agent that runs in `dir` and waits for its answer.
///
/// # Errors
/// [`Usage`] with the agent's own words where it refuses; an error where it does not answer.
pub async fn hand_over(dir: &Path, offer: &Offer) -> anyhow::Result<()> {
    let folder = folder(dir);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
    let id = format!("{:x}-{:x}", std::process::id(), crate::driver::now().0);
    let (asked, answered) = (folder.join(format!("{id}.{OFFER}")), folder.join(format!("{id}.{ANSWER}")));
    let bytes = Zeroizing::new(rmp_serde::to_vec(offer)?);
    // Readable by its owner only, and removed unless all of it comes into place.
    let mut draft = tempfile::Builder::new().suffix(&format!(".{DRAFT}")).tempfile_in(&folder)?;
    draft.write_all(&bytes)?;
    draft.persist_noclobber(&asked).map_err(|refused| refused.error)?;
    let answer = tokio::time::timeout(PATIENCE, wait_for(&answered)).await;
    let _ = fs::remove_file(&asked);
    let answer = answer.context("the running agent does not take the data: is it stopped or still starting?")??;
    if answer.is_empty() { Ok(()) } else { Err(Usage(answer).into()) }
}

async fn wait_for(answered: &Path) -> std::io::Result<String> {
    loop {
        match fs::read_to_string(answered) {
            Ok(answer) => {
                fs::remove_file(answered)?;
                return Ok(answer);
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => tokio::time::sleep(LOOK).await,
            Err(error) => return Err(error),
        }
    }
}

/// The offers that wait in `dir`, in the order in which they were made, each with the file to answer it by. What a process left
/// that was killed meanwhile goes: data that it would hear are not taken must not be.
///
/// # Errors
/// If the folder cannot be read.
pub fn waiting(dir: &Path) -> std::io::Result<Vec<(PathBuf, Offer)>> {
    let entries = match fs::read_dir(folder(dir)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut offers = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let Some(made) = fs::metadata(&path).and_then(|file| file.modified()).ok() else { continue };
        if is_abandoned(&path, made) {
            fs::remove_file(&path)?;
        } else if path.extension().is_some_and(|extension| extension == OFFER) {
            // Who offered may have given up by now.
            let claimed = own(&path, "claimed");
            if fs::rename(&path, &claimed).is_err() {
                continue;
            }
            let bytes = Zeroizing::new(fs::read(&claimed)?);
            fs::remove_file(&claimed)?;
            if let Ok(offer) = rmp_serde::from_slice(&bytes) {
                offers.push((made, path.with_extension(ANSWER), offer));
            }
        }
    }
    offers.sort_by_key(|(made, ..)| *made);
    Ok(offers.into_iter().map(|(_, answer, offer)| (answer, offer)).collect())
}

/// Answers an offer: with nothing where it was taken, else with the reason.
///
/// # Errors
/// If the answer cannot be written.
pub fn answer(file: &Path, refusal: Option<&str>) -> std::io::Result<()> {
    let draft = own(file, "reply");
    fs::write(&draft, refusal.unwrap_or_default())?;
    fs::rename(draft, file)
}

/// Removes the data that an agent had taken and not answered when it was killed: who offered them was told that they were not
/// taken. Only for the one process that runs as the patient of `dir`.
///
/// # Errors
/// If the folder cannot be read or a file not be removed.
pub fn clear(dir: &Path) -> std::io::Result<()> {
    drafts::clear(&folder(dir), OF_RUNNING)
}

/// Whether nobody knows any more of what was put there at this time.
fn is_abandoned(path: &Path, made: SystemTime) -> bool {
    let patience = match path.extension().and_then(|extension| extension.to_str()) {
        Some(DRAFT | ANSWER) => ABANDONED,
        Some(OFFER) => PATIENCE,
        _ => return false,
    };
    made.elapsed().is_ok_and(|age| age > patience)
}

/// The agent's own file beside that of an offer.
fn own(file: &Path, extension: &str) -> PathBuf {
    let name = file.with_extension(extension).file_name().unwrap_or_default().to_string_lossy().into_owned();
    file.with_file_name(format!("{OF_RUNNING}{name}"))
}

fn folder(dir: &Path) -> PathBuf {
    dir.join("offers")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs::File;

    use super::*;
    use crate::input::value_record;
    use crate::profile::Profile;

    fn offer(label: &str) -> Vec<u8> {
        let schema = Profile::standard(&certs::Study::default()).schema;
        let offer = Offer { snapshot: label.parse().unwrap(), record: value_record("7", &schema).unwrap() };
        rmp_serde::to_vec(&offer).unwrap()
    }

    #[test]
    fn data_that_a_killed_agent_had_taken_go_and_what_waits_stays() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| folder(dir.path()).join(name);
        fs::create_dir(folder(dir.path())).unwrap();
        let (waits, taken) = (at("1-2.offer"), own(&at("3-4.offer"), "claimed"));
        [&waits, &taken].iter().for_each(|path| fs::write(path, "").unwrap());
        clear(dir.path()).unwrap();
        assert!(waits.exists() && !taken.exists());
        // It is no offer, and is not left either.
        assert!(waiting(dir.path()).unwrap().is_empty());
        assert_eq!(fs::read_dir(folder(dir.path())).unwrap().count(), 0);
    }

    #[test]
    fn what_a_killed_process_left_goes_when_nobody_can_wait_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| folder(dir.path()).join(name);
        fs::create_dir(folder(dir.path())).unwrap();
        let second = Duration::from_secs(1);
        let old = [("1.draft", ABANDONED + second), ("2.answer", ABANDONED + second), ("3.offer", PATIENCE + second)];
        let new = [("4.draft", PATIENCE), ("5.answer", PATIENCE), ("7.offer", second), ("6.offer", 2 * second)];
        for (name, age) in old.into_iter().chain(new) {
            fs::write(at(name), offer(name)).unwrap();
            File::open(at(name)).unwrap().set_modified(SystemTime::now() - age).unwrap();
        }
        let waiting = waiting(dir.path()).unwrap();
        let labels: Vec<_> = waiting.iter().map(|(_, offer)| offer.snapshot.to_string()).collect();
        assert_eq!(labels, ["6.offer", "7.offer"], "the older one first");
        let mut left: Vec<_> =
            fs::read_dir(folder(dir.path())).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["4.draft", "5.answer"]);
    }

    #[tokio::test]
    async fn an_offer_is_in_place_as_a_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let offer: Offer = rmp_serde::from_slice(&offer("1")).unwrap();
        let handed = async || tokio::time::timeout(LOOK, hand_over(dir.path(), &offer)).await;
        handed().await.unwrap_err();
        let (_, taken) = waiting(dir.path()).unwrap().pop().unwrap();
        assert_eq!(taken.record, offer.record);
        assert_eq!(fs::read_dir(folder(dir.path())).unwrap().count(), 0);
    }
}
