//! `ward certs`: the study's CA, and the certificates of its parties. Requests and certificates travel, keys never do.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use certs::{
    CA_FILE, CERTIFICATE_FILE, Certificate, CertificateAuthority, KEY_FILE, PARTY_VALIDITY, PrivateKey, Register,
    Request, Study,
};
use clap::{Args, Subcommand, value_parser};
use protocol::{Name, Role};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use time::{Duration, OffsetDateTime};

use crate::drafts::UNDER_LOCK;
use crate::exit::{Usage, usage};
use crate::home::{Home, OPERATOR, clear_drafts, make_dir};

/// What a party sends to the CA, in the party's folder.
const REQUEST_FILE: &str = "request.pem";

/// No request comes near this many bytes.
const LONGEST_REQUEST: u64 = 64 * 1024;

/// What `ward certs` can do.
#[derive(Debug, Subcommand)]
pub(crate) enum CertsCommand {
    /// Make the CA of a study, and the parties that every study has.
    Init(InitArgs),
    /// Make a party's key where it will be used, and a request to send to the CA.
    Request(RequestArgs),
    /// Answer requests: enter their names in the CA's register and write certificates.
    Sign(SignArgs),
    /// Show a certificate: name, role, validity, fingerprint, and whether it is revoked.
    Show(ShowArgs),
    /// Revoke a party's name and all its certificates, for good: the broker cuts it off.
    ///
    /// Run it in the home of the CA, say because a key was stolen or somebody left the study. A broker of that home that
    /// runs closes the party's connections at once, disturbs nobody else, and refuses it from then on, as does each broker
    /// that is started there later. The name is never issued again: under another one, with a new key, its holder may be
    /// enrolled anew, and must not give again what it shared before.
    ///
    /// What the party wrote before stands, and a round that is under way takes it as one that dropped. A session that it
    /// joined may miss it for good: the hospital opens another (`ward hospital sum --new`).
    ///
    /// The broker itself and its operator cannot be revoked: stop `ward broker`. Neither can the CA: if `ca.key` was
    /// stolen, the study needs a new home.
    Revoke(RevokeArgs),
}

#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// The study's name [default: ward].
    #[arg(long)]
    study: Option<Study>,
}

#[derive(Debug, Args)]
pub(crate) struct RequestArgs {
    /// The party's name.
    name: Name,
    /// What it wants to be: hospital, server, patient, member, monitor, operator or broker.
    role: Role,
    /// The study's name [default: that of this home, else ward].
    #[arg(long)]
    study: Option<Study>,
}

#[derive(Debug, Args)]
pub(crate) struct SignArgs {
    /// Requests, as `ward certs request` writes them.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The role to give: only a patient may get another than it asks for, `member` or `patient`.
    #[arg(long)]
    role: Option<Role>,
    /// How long the certificates are valid.
    #[arg(long, default_value_t = PARTY_VALIDITY.whole_days() as u16, value_parser = value_parser!(u16).range(1..))]
    days: u16,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// A certificate's file, or a party of this home; without it, all that this home knows.
    #[arg(value_name = "FILE|NAME")]
    whose: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct RevokeArgs {
    /// The party's name, as `ward certs show` lists it.
    name: Name,
}

/// Runs `ward certs`. The answer is also printed for people, unless `json`.
///
/// # Errors
/// What was wrong, and what to do about it.
pub(crate) fn run(home: &Home, command: CertsCommand, json: bool) -> Result<Value> {
    let Answer { text, value } = match command {
        CertsCommand::Init(args) => init(home, &args)?,
        CertsCommand::Request(args) => request(home, &args)?,
        CertsCommand::Sign(args) => sign(home, &args)?,
        CertsCommand::Show(args) => show(home, &args)?,
        CertsCommand::Revoke(args) => revoke(home, &args)?,
    };
    if !json {
        crate::report::print(text)?;
    }
    Ok(value)
}

/// An answer for people and the same for programs.
struct Answer {
    text: String,
    value: Value,
}

fn init(home: &Home, args: &InitArgs) -> Result<Answer> {
    home.init(args.study.as_ref())?;
    let (study, parties) = (home.study()?, home.parties()?);
    let text = format!(
        "The CA of study `{study}` is in `{}`, and {} parties have certificates. Keep `ca.key` to yourself: who has it \
         can name anybody.",
        home.ca_dir().display(),
        parties.len()
    );
    let parties: Vec<_> = parties.iter().map(|(name, role)| json!({ "name": name, "role": role })).collect();
    Ok(Answer { text, value: json!({ "study": study.as_str(), "ca": home.ca_dir(), "parties": parties }) })
}

fn request(home: &Home, args: &RequestArgs) -> Result<Answer> {
    let study = match &args.study {
        Some(study) => study.clone(),
        None => home.study().unwrap_or_default(),
    };
    let dir = home.party_dir(&args.name);
    make_dir(&dir)?;
    let _alone = home.lock()?;
    clear_drafts(&dir)?;
    let key = own_key(&dir.join(KEY_FILE))?;
    let file = dir.join(REQUEST_FILE);
    write(&file, Request::new(&key, &study, args.role, &args.name)?.to_pem())?;
    let text = format!(
        "`{0}` asks study `{study}` to name the holder of `{1}` {2} as {3}.\n\
         Send it to the CA, where `ward certs sign {4}` answers it, and put the `{CERTIFICATE_FILE}` and `{CA_FILE}` \
         that come back into `{5}`. The key stays there.",
        file.display(),
        dir.join(KEY_FILE).display(),
        args.name,
        args.role,
        REQUEST_FILE,
        dir.display(),
    );
    Ok(Answer {
        text,
        value: json!({ "request": file, "study": study.as_str(), "name": args.name, "role": args.role }),
    })
}

/// The key that is there, for a renewal, or a new one.
fn own_key(file: &Path) -> Result<PrivateKey> {
    if file.exists() {
        return Ok(PrivateKey::load(file)?);
    }
    let key = PrivateKey::generate()?;
    key.save(file)?;
    Ok(key)
}

fn sign(home: &Home, args: &SignArgs) -> Result<Answer> {
    let ca = home.authority()?;
    let _alone = home.lock()?;
    let requests: Vec<(Request, PathBuf)> =
        args.files.iter().map(|file| read_request(home, file)).collect::<Result<_>>()?;
    requests.iter().filter_map(|(_, to)| to.parent()).try_for_each(|dir| clear_drafts(&Path::new(".").join(dir)))?;
    let not_after = (OffsetDateTime::now_utc() + Duration::days(args.days.into())).min(ca.not_after());
    let signed: Vec<Answer> =
        requests.iter().map(|(request, to)| sign_one(&ca, request, args.role, not_after, to)).collect::<Result<_>>()?;
    Ok(all(signed))
}

/// A request, and the file for its answer.
fn read_request(home: &Home, file: &Path) -> Result<(Request, PathBuf)> {
    let mut text = String::new();
    let read = File::open(file).and_then(|opened| opened.take(LONGEST_REQUEST).read_to_string(&mut text));
    if let Err(cause) = read {
        usage!("cannot read the request `{}`: {cause}", file.display());
    }
    let request = Request::from_pem(&text).with_context(|| format!("in `{}`", file.display()))?;
    let to = answer_file(home, &request, file)?;
    if to.exists() {
        let there = Certificate::load(&to)?;
        if there.subject().name != *request.name() {
            usage!(
                "`{}` holds the certificate of {}: move it away, or move `{}`",
                to.display(),
                there.subject(),
                file.display()
            );
        }
    }
    Ok((request, to))
}

/// Into the party's folder if the party is of this home, else beside the request; a folder full of
/// requests gets an answer for each.
fn answer_file(home: &Home, request: &Request, file: &Path) -> Result<PathBuf> {
    let dir = home.party_dir(request.name());
    let key = dir.join(KEY_FILE);
    if key.exists() && PrivateKey::load(&key)?.public_key() == *request.public_key() {
        return Ok(dir.join(CERTIFICATE_FILE));
    }
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let plain = file.file_name().is_some_and(|name| name == REQUEST_FILE);
    Ok(file.with_file_name(if plain { CERTIFICATE_FILE.into() } else { format!("{stem}-{CERTIFICATE_FILE}") }))
}

fn sign_one(
    ca: &CertificateAuthority,
    request: &Request,
    role: Option<Role>,
    not_after: OffsetDateTime,
    to: &Path,
) -> Result<Answer> {
    let certificate = ca.sign(request, role.unwrap_or(request.role()), not_after)?;
    let anchor = to.with_file_name(CA_FILE);
    if fs::read_to_string(&anchor).ok().as_deref() != Some(ca.to_pem()) {
        ca.authority().save(&anchor)?;
    }
    certificate.save(to)?;
    let Answer { text, value } = describe(&certificate, Some(to), None);
    let text = format!("{text}\n  hand over   `{}` and `{}`", to.display(), anchor.display());
    Ok(Answer { text, value })
}

fn show(home: &Home, args: &ShowArgs) -> Result<Answer> {
    let Some(whose) = &args.whose else { return show_all(home) };
    let file = Path::new(whose);
    if file.is_file() {
        let certificate = Certificate::load(file)?;
        let revoked = revoked_since(home, &certificate)?;
        return Ok(describe(&certificate, Some(file), revoked));
    }
    let neither = || Usage(format!("`{whose}` is neither a certificate's file nor the name of a party of this home"));
    let name: Name = whose.parse().map_err(|_| neither())?;
    match issued(home, &name)? {
        Some(certificate) => Ok(describe(&certificate, None, revoked_since(home, &certificate)?)),
        None => {
            usage!("`{name}` has no certificate in `{}`: `ward certs show` lists who has one", home.path().display())
        }
    }
}

/// The newest certificate of `name`: as the CA issued it, or as it is in the party's folder.
fn issued(home: &Home, name: &Name) -> Result<Option<Certificate>> {
    if let Some(register) = home.register()
        && let Some(certificate) = register.get(name)?
    {
        return Ok(Some(certificate));
    }
    let file = home.party_dir(name).join(CERTIFICATE_FILE);
    Ok(if file.exists() { Some(Certificate::load(file)?) } else { None })
}

/// Since when the CA of this home has revoked the holder of `certificate`.
fn revoked_since(home: &Home, certificate: &Certificate) -> Result<Option<OffsetDateTime>> {
    let (Some(register), name) = (home.register(), &certificate.subject().name) else { return Ok(None) };
    // Another study may have the same names.
    let is_ours = register.get(name)?.is_some_and(|issued| issued.public_key() == certificate.public_key());
    Ok(if is_ours { register.revoked_since(name)? } else { None })
}

fn show_all(home: &Home) -> Result<Answer> {
    let certificates = match home.register() {
        Some(register) => register.all()?,
        None => home.certificates()?,
    };
    let shown = |certificate| anyhow::Ok(describe(certificate, None, revoked_since(home, certificate)?));
    let answers: Vec<Answer> = certificates.iter().map(shown).collect::<Result<_>>()?;
    if answers.is_empty() {
        usage!(
            "`{}` holds no certificate: `ward certs init` makes a CA, `ward certs request` asks one",
            home.path().display()
        );
    }
    Ok(all(answers))
}

fn revoke(home: &Home, args: &RevokeArgs) -> Result<Answer> {
    let (name, ca) = (&args.name, home.authority()?);
    let _alone = home.lock()?;
    if let Some(certificate) = Register::of(home.ca_dir()).get(name)? {
        check_can_be_cut_off(&certificate)?;
    }
    let certificate = ca.revoke(name)?;
    let Answer { text, value } = describe(&certificate, None, revoked_since(home, &certificate)?);
    let text = format!(
        "{text}\n`{name}` is revoked for good. If `ward broker` runs here, it cuts it off now; it is refused from now on, and \
         what it wrote before stands."
    );
    Ok(Answer { text, value })
}

/// Whoever is revoked is taken off the broker's list; so who does not come in by it cannot be revoked.
fn check_can_be_cut_off(certificate: &Certificate) -> Result<()> {
    let subject = certificate.subject();
    if subject.role == Role::Broker {
        usage!(
            "`{}` is a broker, to which the others come: they check its certificate against the CA and the dates alone, so \
             revoking it would keep nobody from it. Stop it; if its key was stolen, the study needs a new CA in a new home",
            subject.name
        );
    }
    if subject.role == Role::Operator && subject.name.as_str() == OPERATOR {
        usage!(
            "`{OPERATOR}` is what `ward broker` itself works as, so it would cut itself off: stop the broker; if the key was \
             stolen, the study needs a new CA in a new home"
        );
    }
    Ok(())
}

fn all(answers: Vec<Answer>) -> Answer {
    let (texts, values): (Vec<_>, Vec<_>) = answers.into_iter().map(|Answer { text, value }| (text, value)).unzip();
    Answer { text: texts.join("\n"), value: json!({ "certificates": values }) }
}

fn describe(certificate: &Certificate, file: Option<&Path>, revoked: Option<OffsetDateTime>) -> Answer {
    let subject = certificate.subject();
    let left = (certificate.not_after() - OffsetDateTime::now_utc()).whole_seconds().div_euclid(24 * 3600);
    let fingerprint = fingerprint(certificate);
    let (from, until) = (date(certificate.not_before()), date(certificate.not_after()));
    let revoked = revoked.map(date);
    let over = match &revoked {
        Some(since) => format!("revoked on {since} UTC"),
        None if left < 0 => "over: renew it with `ward certs request`".into(),
        None => format!("{left} days left"),
    };
    let text = format!(
        "{subject}\n  role        {}\n  valid       {from} to {until} UTC ({over})\n  SHA-256     {fingerprint}",
        subject.role
    );
    let value = json!({
        "uri": subject.to_string(), "study": subject.study.as_str(), "name": subject.name, "role": subject.role,
        "not_before": from, "not_after": until, "days_left": left, "sha256": fingerprint, "file": file,
        "revoked": revoked,
    });
    Answer { text, value }
}

/// As OpenSSL prints it, for comparing over the telephone.
fn fingerprint(certificate: &Certificate) -> String {
    let digest = Sha256::digest(certificate.der());
    digest.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}

/// A moment in UTC, to the second.
fn date(moment: OffsetDateTime) -> String {
    let moment = moment.to_offset(time::UtcOffset::UTC);
    format!("{} {:02}:{:02}:{:02}", moment.date(), moment.hour(), moment.minute(), moment.second())
}

/// Writes a file in place of what stands there, whole or not at all. Under the home's lock.
fn write(path: &Path, text: &str) -> Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let written = tempfile::Builder::new().prefix(UNDER_LOCK).tempfile_in(dir).and_then(|file| {
        fs::write(file.path(), text)?;
        file.persist(path).map_err(|refused| refused.error)
    });
    written.map(drop).with_context(|| format!("cannot write `{}`", path.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::PermissionsExt;

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        certs: CertsCommand,
    }

    /// Two homes: the CA's, and that of a party on a machine of its own.
    struct Two {
        ca: Home,
        far: Home,
        dir: tempfile::TempDir,
    }

    impl Two {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let (ca, far) = (Home::at(dir.path().join("ca-home")), Home::at(dir.path().join("far-home")));
            certs(&ca, &["init", "--study", "heart"]).unwrap();
            Self { ca, far, dir }
        }

        fn file(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        fn ask(&self, name: &str, role: &str) -> PathBuf {
            let asked = certs(&self.far, &["request", name, role, "--study", "heart"]).unwrap();
            let (from, to) = (asked["request"].as_str().unwrap(), self.file(&format!("{name}.pem")));
            fs::copy(from, &to).unwrap();
            to
        }
    }

    fn certs(home: &Home, line: &[&str]) -> Result<Value> {
        let line = Line::try_parse_from(["ward"].iter().chain(line))?;
        run(home, line.certs, true)
    }

    fn sign(home: &Home, file: &Path, more: &[&str]) -> Result<Value> {
        certs(home, &[&["sign", file.to_str().unwrap()], more].concat())
    }

    #[test]
    fn a_party_on_its_own_machine_gets_a_certificate() {
        let two = Two::new();
        let signed = sign(&two.ca, &two.ask("dave", "patient"), &["--role", "member", "--days", "30"]).unwrap();
        let signed = &signed["certificates"][0];
        assert_eq!(signed["uri"], "spiffe://heart/member/dave");
        assert_eq!(signed["days_left"], 29);
        assert_eq!(signed["file"], two.file("dave-cert.pem").to_str().unwrap());
        let name: Name = "dave".parse().unwrap();
        let dir = two.far.party_dir(&name);
        fs::copy(two.file("dave-cert.pem"), dir.join(CERTIFICATE_FILE)).unwrap();
        fs::copy(two.file("ca.pem"), dir.join(CA_FILE)).unwrap();
        assert_eq!(two.far.credentials(&name).unwrap().identity().role, Role::Member);
        assert_eq!(two.ca.patients().unwrap(), [(name, Role::Member)]);
        assert_eq!(fs::metadata(dir.join(KEY_FILE)).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!fs::read_to_string(dir.join(REQUEST_FILE)).unwrap().contains("PRIVATE"));
    }

    #[test]
    fn a_party_of_the_same_home_needs_no_copying() {
        let two = Two::new();
        let asked = certs(&two.ca, &["request", "erin", "patient"]).unwrap();
        assert_eq!(asked["study"], "heart");
        sign(&two.ca, Path::new(asked["request"].as_str().unwrap()), &[]).unwrap();
        let name: Name = "erin".parse().unwrap();
        assert_eq!(two.ca.credentials(&name).unwrap().identity().role, Role::Patient);
        let (before, asked) = (two.ca.credentials(&name).unwrap(), certs(&two.ca, &["request", "erin", "patient"]));
        sign(&two.ca, Path::new(asked.unwrap()["request"].as_str().unwrap()), &["--days", "10"]).unwrap();
        let after = two.ca.credentials(&name).unwrap();
        assert_eq!(before.identity().key, after.identity().key, "a renewal keeps the key");
        assert!(after.certificate().not_after() < before.certificate().not_after());
    }

    #[test]
    fn what_the_ca_must_refuse_is_refused() {
        let two = Two::new();
        let dave = two.ask("dave", "patient");
        assert!(sign(&two.far, &dave, &[]).unwrap_err().to_string().contains("no certificate authority"));
        assert!(!two.far.ca_dir().exists());
        assert!(sign(&two.ca, &dave, &["--role", "hospital"]).unwrap_err().to_string().contains("asks to be patient"));
        assert!(sign(&two.ca, &two.ask("server", "server"), &[]).unwrap_err().to_string().contains("issued once"));
        let missing = sign(&two.ca, &two.file("nobody.pem"), &[]).unwrap_err().to_string();
        assert!(missing.contains("nobody.pem"), "{missing}");
        fs::write(&dave, "junk").unwrap();
        assert!(format!("{:#}", sign(&two.ca, &dave, &[]).unwrap_err()).contains("dave.pem`: the certificate request"));
        assert!(certs(&two.ca, &["sign"]).is_err() && certs(&two.ca, &["sign", "x", "--days", "0"]).is_err());
        let other = certs(&two.far, &["request", "gus", "patient", "--study", "lung"]).unwrap();
        let other = sign(&two.ca, Path::new(other["request"].as_str().unwrap()), &[]).unwrap_err().to_string();
        assert!(other.contains("`lung`") && other.contains("`heart`"), "{other}");
    }

    #[test]
    fn an_answer_never_replaces_another_partys() {
        let two = Two::new();
        let dir = two.dir.path().join("inbox");
        fs::create_dir(&dir).unwrap();
        for (name, outcome) in [("dave", true), ("erin", false)] {
            fs::rename(two.ask(name, "patient"), dir.join(REQUEST_FILE)).unwrap();
            let signed = sign(&two.ca, &dir.join(REQUEST_FILE), &[]);
            assert_eq!(signed.is_ok(), outcome, "{signed:?}");
        }
        assert_eq!(Certificate::load(dir.join(CERTIFICATE_FILE)).unwrap().subject().name.as_str(), "dave");
    }

    #[test]
    fn certificates_are_shown() {
        let two = Two::new();
        let all = certs(&two.ca, &["show"]).unwrap();
        assert_eq!(all["certificates"].as_array().unwrap().len(), 5);
        let server = certs(&two.ca, &["show", "server"]).unwrap();
        assert_eq!((&server["role"], &server["days_left"]), (&json!("server"), &json!(364)));
        let file = two.ca.party_dir(&"server".parse().unwrap()).join(CERTIFICATE_FILE);
        let same = certs(&two.ca, &["show", file.to_str().unwrap()]).unwrap();
        assert_eq!(same["sha256"], server["sha256"]);
        assert_eq!(server["sha256"].as_str().unwrap().len(), 95);
        assert!(certs(&two.ca, &["show", "dave"]).unwrap_err().to_string().contains("`dave` has no certificate"));
        assert!(certs(&two.ca, &["show", "no/such"]).unwrap_err().to_string().contains("neither"));
        assert!(certs(&two.far, &["show"]).unwrap_err().to_string().contains("holds no certificate"));
        let people = describe(&Certificate::load(file).unwrap(), None, None).text;
        assert!(people.starts_with("spiffe://heart/server/server\n") && people.contains("364 days left"), "{people}");
    }
}
