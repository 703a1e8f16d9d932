//! What must not be told: tokens and keys. A configuration says where each stands; the agent reads it, as root, and hands it to the process
//! over their socket.

use std::{ffi::OsStr, fmt, path::PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use hyper::header::HeaderValue;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::IgnoredAny};

use crate::files;

/// Bytes of a token or a key.
const MAX: usize = 64 << 10;
/// Set by systemd for a service with `LoadCredential=`.
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// Something that is never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl Secret {
    /// For the receiver alone.
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }

    /// What must be held like one.
    pub(crate) fn new(text: String) -> Self {
        Self(text)
    }

    /// Whether a header can hold it.
    pub(crate) fn is_header(&self) -> bool {
        HeaderValue::from_str(&self.0).is_ok()
    }

    /// A text of somebody else that may repeat it.
    pub(super) fn struck_from(&self, text: &str) -> String {
        if self.0.is_empty() { text.to_owned() } else { text.replace(&self.0, "[secret]") }
    }
}

/// Where a secret stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Place {
    /// A file, which only root should be able to read. One line end at its end is no part of it
    File(PathBuf),
    /// An environment variable of the agent
    Env(String),
    /// A credential of the service: `LoadCredential=` of systemd
    Credential(String),
}

/// What was written for a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(from = "Written")]
#[schemars(with = "Place")]
pub(crate) struct Source(Option<Place>);

/// Whatever it is: a message about a secret that stands there would print it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Place(Place),
    Other(IgnoredAny),
}

impl From<Written> for Source {
    fn from(written: Written) -> Self {
        match written {
            Written::Place(place) => Self(Some(place)),
            Written::Other(IgnoredAny) => Self(None),
        }
    }
}

/// A secret that was read, and what a person should know about where it stands.
pub(crate) struct Found {
    pub(crate) secret: Secret,
    pub(crate) warning: Option<String>,
}

impl Source {
    /// The file, if it is one.
    pub(crate) fn file(&self) -> Option<&PathBuf> {
        match &self.0 {
            Some(Place::File(path)) => Some(path),
            _ => None,
        }
    }

    /// Whether it is there for the service only: a person who checks the configuration need not have it.
    pub(crate) fn is_of_service(&self) -> bool {
        matches!(&self.0, Some(Place::Env(_) | Place::Credential(_)))
    }

    /// Reads it. `env` is the agent's environment.
    pub(crate) fn read(&self, env: &dyn Fn(&str) -> Option<String>) -> Result<Found> {
        let (text, warning) = match &self.0 {
            None => bail!(
                "a secret is never written here: say where it stands, `{{ file = \"/etc/toolwarden/secret\" }}`, \
                 `{{ env = \"NAME\" }}` or `{{ credential = \"name\" }}`"
            ),
            Some(Place::File(path)) => {
                ensure!(path.is_absolute(), "`{}` is not absolute: begin it with /", path.display());
                let (text, meta) = files::secret(path, MAX)?;
                let open = files::readable_by_others(path, &meta);
                (text, open.map(|(why, remedy)| format!("{} {why}: {remedy}", path.display())))
            }
            Some(Place::Env(name)) => (
                env(name).with_context(|| {
                    format!("there is no environment variable {name}, or it is not UTF-8")
                })?,
                None,
            ),
            Some(Place::Credential(name)) => {
                let dir = env(CREDENTIALS).with_context(|| {
                    format!("no credential `{name}`: {CREDENTIALS} is not set; it is of services with LoadCredential=")
                })?;
                let plain = PathBuf::from(name).file_name() == Some(OsStr::new(name));
                ensure!(plain, "`{name}` is no name of a credential");
                (files::secret(&PathBuf::from(dir).join(name), MAX)?.0, None)
            }
        };
        let text = text.strip_suffix('\n').map_or(text.as_str(), |t| t.strip_suffix('\r').unwrap_or(t));
        ensure!(!text.is_empty(), "it is empty");
        Ok(Found { secret: Secret(text.to_owned()), warning })
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    fn none(_: &str) -> Option<String> {
        None
    }

    fn read(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Found> {
        #[derive(Deserialize)]
        struct Table {
            token: Source,
        }
        toml::from_str::<Table>(&format!("token = {text}")).expect("anything").token.read(env)
    }

    #[test]
    fn it_is_read_from_where_it_stands_and_never_printed() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("t");
        fs::write(&path, "hidden\n").expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("own file");
        let of_file = read(&format!("{{ file = '{}' }}", path.display()), &none).expect("read");
        assert_eq!((of_file.secret.reveal(), of_file.warning), ("hidden", None));
        assert_eq!(format!("{:?}", of_file.secret), "[secret]");
        let of_env = read("{ env = 'T' }", &|name| (name == "T").then(|| "x".to_owned())).expect("read");
        assert_eq!(of_env.secret.reveal(), "x");
        let at = dir.path().to_str().expect("utf-8").to_owned();
        let credentials = move |name: &str| (name == CREDENTIALS).then(|| at.clone());
        assert_eq!(read("{ credential = 't' }", &credentials).expect("read").secret.reveal(), "hidden");
        read("{ credential = '../t' }", &credentials).map(|_| ()).expect_err("no name");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("own file");
        let open = read(&format!("{{ file = '{}' }}", path.display()), &none).expect("read");
        assert!(open.warning.expect("told").contains("chmod o-rwx"));
    }

    #[test]
    fn what_is_missing_or_odd_is_told_without_the_secret() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        fs::write(at("empty"), "\n").expect("a file");
        fs::write(at("large"), "x".repeat(MAX + 1)).expect("a file");
        std::os::unix::fs::symlink(at("empty"), at("link")).expect("a link");
        rustix::fs::mknodat(rustix::fs::CWD, at("fifo"), rustix::fs::FileType::Fifo, 0o600.into(), 0)
            .expect("a fifo");
        let file = |name: &str| format!("{{ file = '{}' }}", at(name).display());
        for (text, why) in [
            ("'s3cr3t'".to_owned(), "never written here"),
            ("{ file = 's3cr3t', env = 'b' }".to_owned(), "never written here"),
            ("{ value = 's3cr3t' }".to_owned(), "never written here"),
            ("{ env = 'NO_SUCH' }".to_owned(), "NO_SUCH"),
            ("{ credential = 'c' }".to_owned(), "LoadCredential"),
            (file("none"), "none"),
            (file("empty"), "empty"),
            (file("large"), "larger"),
            (file("link"), "link"),
            (file("fifo"), "regular file"),
        ] {
            let told = format!("{:#}", read(&text, &none).map(|_| ()).expect_err("refused"));
            assert!(told.contains(why) && !told.contains("s3cr3t"), "{text}: {told}");
        }
    }
}
