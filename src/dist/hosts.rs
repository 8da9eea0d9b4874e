//! SLURM's lists of hosts: `login1,node[01-03,07],rack[1-2]-[a,b]`. Commas part entries; brackets hold numbers, ranges
//! of numbers with the first one's leading zeros, or words, and an entry with several brackets stands for all
//! combinations.

use super::launch::MOST_PROCESSES;

/// The hosts of a list, in its order.
///
/// # Errors
/// What is wrong with it, as a phrase: no list of hosts, or more of them than there can be processes.
pub fn expand(list: &str) -> Result<Vec<String>, String> {
    let mut hosts = Vec::new();
    for entry in entries(list)? {
        let of_entry = combinations(entry)?;
        if hosts.len() + of_entry.len() > MOST_PROCESSES {
            return Err(too_many());
        }
        hosts.extend(of_entry);
    }
    Ok(hosts)
}

fn too_many() -> String {
    format!("it names more than {MOST_PROCESSES} hosts")
}

/// The parts between the commas that stand outside of brackets.
fn entries(list: &str) -> Result<Vec<&str>, String> {
    let mut entries = Vec::new();
    let (mut begin, mut inside) = (0, false);
    for (at, character) in list.char_indices() {
        match character {
            '[' if inside => return Err("a bracket is opened within brackets".to_owned()),
            '[' => inside = true,
            ']' if !inside => return Err("a bracket is closed that was not opened".to_owned()),
            ']' => inside = false,
            ',' if !inside => {
                entries.push(&list[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    if inside {
        return Err("a bracket is not closed".to_owned());
    }
    entries.push(&list[begin..]);
    if entries.iter().any(|entry| entry.is_empty()) {
        return Err("a host has no name".to_owned());
    }
    Ok(entries)
}

/// The hosts of one entry, whose brackets are known to be in pairs.
fn combinations(entry: &str) -> Result<Vec<String>, String> {
    let mut names = vec![String::new()];
    let mut rest = entry;
    while !rest.is_empty() {
        let (word, after) = rest.split_at(rest.find('[').unwrap_or(rest.len()));
        check_word(word)?;
        for name in &mut names {
            name.push_str(word);
        }
        let Some((choices, after)) = after.strip_prefix('[').and_then(|after| after.split_once(']')) else {
            return Ok(names);
        };
        let choices = choose(choices)?;
        if names.len() * choices.len() > MOST_PROCESSES {
            return Err(too_many());
        }
        let with_each = |name: &String| choices.iter().map(|choice| format!("{name}{choice}")).collect();
        names = names.iter().flat_map(|name| -> Vec<String> { with_each(name) }).collect();
        rest = after;
    }
    Ok(names)
}

/// What a pair of brackets stands for.
fn choose(choices: &str) -> Result<Vec<String>, String> {
    let mut chosen = Vec::new();
    for choice in choices.split(',') {
        let Some((first, last)) = choice.split_once('-') else {
            check_word(choice)?;
            if choice.is_empty() {
                return Err("a pair of brackets has an empty part".to_owned());
            }
            chosen.push(choice.to_owned());
            continue;
        };
        let (Ok(from), Ok(to)) = (first.parse::<u64>(), last.parse::<u64>()) else {
            return Err(format!("`{choice}` is no range of numbers"));
        };
        // Signs would parse.
        if !(first.as_bytes()[0].is_ascii_digit() && last.as_bytes()[0].is_ascii_digit()) || from > to {
            return Err(format!("`{choice}` is no range of numbers"));
        }
        if to - from >= (MOST_PROCESSES - chosen.len().min(MOST_PROCESSES)) as u64 {
            return Err(too_many());
        }
        let width = first.len();
        chosen.extend((from..=to).map(|number| format!("{number:0width$}")));
    }
    Ok(chosen)
}

/// The characters of a host's name.
fn check_word(word: &str) -> Result<(), String> {
    match word.chars().find(|character| !(character.is_ascii_alphanumeric() || "-_.:".contains(*character))) {
        Some(odd) => Err(format!("`{}` is no part of a host's name", odd.escape_debug())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_expanded_as_slurm_does() {
        for (list, hosts) in [
            ("node01", &["node01"][..]),
            ("a,b.example.org", &["a", "b.example.org"]),
            ("node[01-03,07]", &["node01", "node02", "node03", "node07"]),
            ("n[8-11]", &["n8", "n9", "n10", "n11"]),
            ("n[098-101]x,login1", &["n098x", "n099x", "n100x", "n101x", "login1"]),
            ("r[1-2]-[a,b]", &["r1-a", "r1-b", "r2-a", "r2-b"]),
            ("login,gpu-a[3],gpu-b[1,3]", &["login", "gpu-a3", "gpu-b1", "gpu-b3"]),
            ("[1-2]", &["1", "2"]),
            ("n[0-0]", &["n0"]),
        ] {
            assert_eq!(expand(list).as_deref(), Ok(hosts.map_owned().as_slice()), "{list}");
        }
    }

    /// Words as the function returns them.
    trait MapOwned {
        fn map_owned(&self) -> Vec<String>;
    }

    impl MapOwned for &[&str] {
        fn map_owned(&self) -> Vec<String> {
            self.iter().map(|word| (*word).to_owned()).collect()
        }
    }

    #[test]
    fn what_is_no_list_is_refused_with_a_reason() {
        for (list, reason) in [
            ("", "no name"),
            ("a,,b", "no name"),
            ("a,", "no name"),
            ("n[1-3", "not closed"),
            ("n1-3]", "not opened"),
            ("n[1-[2]]", "within brackets"),
            ("n[]", "empty part"),
            ("n[1,]", "empty part"),
            ("n[3-1]", "no range"),
            ("n[a-c]", "no range"),
            ("n[-3]", "no range"),
            ("n[1-]", "no range"),
            ("n[1-2-3]", "no range"),
            ("n[+1-3]", "no range"),
            ("n[1-99999999999999999999999]", "no range"),
            ("two words", "no part"),
            ("n\u{0}", "no part"),
            ("nödé", "no part"),
            ("n[$(x)]", "no part"),
        ] {
            let error = expand(list).unwrap_err();
            assert!(error.contains(reason), "{list}: {error}");
        }
    }

    #[test]
    fn memory_stays_bounded_whatever_a_list_says() {
        let long = vec!["n[1-60000]"; 1000].join(",");
        let inside = format!("n[{}]", vec!["1-60000"; 1000].join(","));
        for list in ["n[0-18446744073709551615]", "n[1-9999][1-9999][1-9999]", &long, &inside] {
            assert!(expand(list).unwrap_err().contains("more than"), "{list:.40}");
        }
    }
}
