//! Stop strings: a completion ends before (or after) the first of them, wherever the token boundaries fall.

/// What became of a piece of text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StopOutcome {
    /// Text that can be sent: no stop string can reach back into it any more.
    pub text: String,
    /// The stop string that ended the completion, as an index into the list. Nothing may be pushed after it.
    pub stopped: Option<usize>,
}

/// Watches one completion for stop strings, and holds back text that may turn out to be the beginning of one.
///
/// The stop string that is complete first wins, which is what one character at a time would give; of those complete at
/// the same place, the first in the list (vLLM's rules, `check_stop_strings`).
#[derive(Debug, Clone)]
pub struct StopStrings {
    stops: Vec<String>,
    include: bool,
    held: String,
}

impl StopStrings {
    /// `include`: whether the stop string itself belongs to the text (`include_stop_str_in_output`). Empty strings in
    /// `stops` are never found.
    pub fn new(stops: Vec<String>, include: bool) -> Self {
        Self { stops, include, held: String::new() }
    }

    /// The next piece of the completion.
    pub fn push(&mut self, piece: &str) -> StopOutcome {
        let searched = self.held.len();
        self.held.push_str(piece);
        match self.earliest(searched) {
            Some((stopped, start)) => {
                let end = if self.include { start + self.stops[stopped].len() } else { start };
                self.held.truncate(end);
                StopOutcome { text: std::mem::take(&mut self.held), stopped: Some(stopped) }
            }
            None => StopOutcome { text: self.release(), stopped: None },
        }
    }

    /// The next piece while stop strings are off (`min_tokens`): a stop string complete within it does not count, one
    /// that only begins in it does.
    pub fn push_unchecked(&mut self, piece: &str) -> String {
        self.held.push_str(piece);
        self.release()
    }

    /// The text still held back, once the completion has ended for another reason.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Stop string (index) and where it starts, of the one that ends first, after byte `searched`.
    fn earliest(&self, searched: usize) -> Option<(usize, usize)> {
        let mut best: Option<(usize, usize, usize)> = None;
        for (index, stop) in self.stops.iter().enumerate().filter(|(_, stop)| !stop.is_empty()) {
            // A match must end in the new text.
            let mut from = (searched + 1).saturating_sub(stop.len());
            while !self.held.is_char_boundary(from) {
                from -= 1;
            }
            let Some(start) = find_ending_after(&self.held, stop, from, searched) else { continue };
            let end = start + stop.len();
            if best.is_none_or(|(best_end, ..)| end < best_end) {
                best = Some((end, index, start));
            }
        }
        best.map(|(_, index, start)| (index, start))
    }

    /// Everything but the longest tail that is a proper prefix of a stop string.
    fn release(&mut self) -> String {
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0);
        let from = self.held.len().saturating_sub(longest.saturating_sub(1));
        let keep = (from..self.held.len())
            .filter(|&at| self.held.is_char_boundary(at))
            .find(|&at| self.stops.iter().any(|s| s.len() > self.held.len() - at && s.starts_with(&self.held[at..])))
            .unwrap_or(self.held.len());
        let tail = self.held.split_off(keep);
        std::mem::replace(&mut self.held, tail)
    }
}

fn find_ending_after(text: &str, stop: &str, from: usize, searched: usize) -> Option<usize> {
    let mut from = from;
    loop {
        let start = from + text[from..].find(stop)?;
        if start + stop.len() > searched {
            return Some(start);
        }
        from = start + text[start..].chars().next().map_or(1, char::len_utf8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(stops: &[&str], include: bool, pieces: &[&str]) -> (Vec<String>, Option<usize>) {
        let mut watch = StopStrings::new(stops.iter().map(|s| s.to_string()).collect(), include);
        let mut sent = Vec::new();
        for piece in pieces {
            let outcome = watch.push(piece);
            sent.push(outcome.text);
            if outcome.stopped.is_some() {
                assert_eq!(watch.finish(), "", "nothing may be left after a stop");
                return (sent, outcome.stopped);
            }
        }
        sent.push(watch.finish());
        (sent, None)
    }

    fn text(stops: &[&str], include: bool, pieces: &[&str]) -> (String, Option<usize>) {
        let (sent, stopped) = run(stops, include, pieces);
        (sent.concat(), stopped)
    }

    /// vLLM's tests/detokenizer/test_check_stop_strings.py: its text comes in two steps, as one with several tokens.
    #[test]
    fn vllm_cases() {
        let pieces = [" The user", " is a"];
        for (stops, is) in [(["a", "is"], 1), (["is", "a"], 0)] {
            assert_eq!(text(&stops, false, &pieces), (" The user ".into(), Some(is)));
            assert_eq!(text(&stops, true, &pieces), (" The user is".into(), Some(is)));
        }
        assert_eq!(text(&["abc", "b"], false, &["abc"]), ("a".into(), Some(1)));
        assert_eq!(text(&["ab", "b"], false, &["ab"]), ("".into(), Some(0)));
        assert_eq!(text(&["b", "ab"], false, &["ab"]), ("a".into(), Some(0)));
        assert_eq!(text(&["."], false, &["hello world", "."]), ("hello world".into(), Some(0)));
        assert_eq!(text(&["."], true, &["hello world", "."]), ("hello world.".into(), Some(0)));
        assert_eq!(text(&["zzz"], false, &["hello"]), ("hello".into(), None));
        assert_eq!(text(&["h"], false, &[""]), ("".into(), None));
        assert_eq!(text(&[], false, &["hello"]), ("hello".into(), None));
    }

    #[test]
    fn held_back_only_as_long_as_needed() {
        let (sent, stopped) = run(&["<end>"], false, &["a<", "en", "x<end", "<e", "nd>tail"]);
        assert_eq!((sent.as_slice(), stopped), (&["a", "", "<enx", "<end", ""].map(String::from)[..], Some(0)));
        // A tail that never becomes a stop string is sent at the end.
        assert_eq!(run(&["\n\n"], false, &["x\n"]).0, ["x", "\n"]);
        assert_eq!(run(&["aab"], false, &["aa", "ab"]), (vec!["".into(), "a".into()], Some(0)));
    }

    #[test]
    fn characters_are_not_cut() {
        assert_eq!(text(&["é…"], false, &["é", "é", "…z"]), ("é".into(), Some(0)));
        assert_eq!(run(&["日本"], false, &["日", "光"]).0, ["", "日光", ""]);
    }

    #[test]
    fn unchecked_text_may_begin_but_not_complete_a_stop() {
        let mut watch = StopStrings::new(vec!["END".into()], false);
        assert_eq!(watch.push_unchecked("one END two E"), "one END two ");
        assert_eq!(watch.push("ND three"), StopOutcome { text: String::new(), stopped: Some(0) });
        let mut watch = StopStrings::new(vec!["ab".into()], false);
        assert_eq!(watch.push_unchecked("ab"), "ab");
        assert_eq!(watch.push("x"), StopOutcome { text: "x".into(), stopped: None });
        // Held text that is a stop string's beginning and holds a whole one that did not count.
        let mut watch = StopStrings::new(vec!["aba-".into(), "b".into()], false);
        assert_eq!(watch.push_unchecked("ab"), "");
        assert_eq!(watch.push("x"), StopOutcome { text: "abx".into(), stopped: None });
    }

    /// However a text is cut into pieces, the result is that of one character at a time.
    #[test]
    fn independent_of_the_pieces() {
        let whole = "aabacabaabbaacab";
        for stops in [["aabb", "cab"], ["abba", "caba"], ["zz", "baab"]] {
            let letters: Vec<&str> = (0..whole.len()).map(|i| &whole[i..i + 1]).collect();
            let want = text(&stops, false, &letters);
            for size in 2..=whole.len() {
                let pieces: Vec<&str> =
                    (0..whole.len()).step_by(size).map(|i| &whole[i..(i + size).min(whole.len())]).collect();
                assert_eq!(text(&stops, false, &pieces), want, "{stops:?} in pieces of {size}");
            }
        }
    }
}
