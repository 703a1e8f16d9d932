//! Whose configuration to look at.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::read;

/// More accounts than this are a directory service; the agent reads local ones.
const MAX_HOMES: usize = 1024;
/// First uid of people, by the convention of every distribution in use (`UID_MIN`).
const FIRST_PERSON: u32 = 1000;

/// A user's home directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Home {
    /// User.
    pub(crate) uid: u32,
    /// Directory.
    pub(crate) dir: PathBuf,
}

/// Home directories of root and of people on this host, and that of whoever started the agent.
pub(crate) fn homes() -> Vec<Home> {
    let mut homes = match read::read(Path::new("/etc/passwd"), 0) {
        Ok(Some(bytes)) => from_passwd(&bytes),
        _ => Vec::new(),
    };
    if let Some(dir) = std::env::var_os("HOME").map(PathBuf::from)
        && dir.is_absolute()
        && !homes.iter().any(|home| home.dir == dir)
        && let Ok(about) = std::fs::metadata(&dir)
    {
        homes.push(Home { uid: about.uid(), dir });
    }
    homes
}

fn from_passwd(bytes: &[u8]) -> Vec<Home> {
    let mut homes: Vec<Home> = Vec::new();
    for line in String::from_utf8_lossy(bytes).lines() {
        let mut fields = line.split(':');
        let (Some(uid), Some(dir)) = (fields.nth(2), fields.nth(2)) else {
            continue;
        };
        let Ok(uid) = uid.parse::<u32>() else {
            continue;
        };
        let dir = PathBuf::from(dir);
        // `nobody` and service accounts without a home have `/` or `/nonexistent`.
        let wanted = (uid == 0 || uid >= FIRST_PERSON) && dir.is_absolute();
        if wanted && dir.parent().is_some() && homes.len() < MAX_HOMES {
            let home = Home { uid, dir };
            if !homes.contains(&home) {
                homes.push(home);
            }
        }
    }
    homes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_and_root_have_homes() {
        let passwd = b"root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1::/usr/sbin:/bin/false\n\
            ann:x:1000:1000:Ann,,,:/home/ann:/bin/bash\nnobody:x:65534:65534::/:/bin/false\n\
            broken:x\n:::::::\nbad:x:-1:0::/x:\nrel:x:1001:1::home:/bin/sh\n\xff\xfe:x:1002\n";
        let dirs: Vec<_> = from_passwd(passwd).into_iter().map(|h| (h.uid, h.dir)).collect();
        assert_eq!(dirs, [(0, "/root".into()), (1000, "/home/ann".into())]);
    }
}
