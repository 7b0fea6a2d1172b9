# JSON in, one line for each value out: path/of/keys <tab> value. Newlines inside strings become spaces.
{ text = text $0 "\n" }
END { value("") }

function skip() { sub(/^[ \t\r\n]+/, "", text) }

function take(regex,    token) {
    if (!match(text, regex)) { print "not JSON near: " substr(text, 1, 20) > "/dev/stderr"; exit 1 }
    token = substr(text, 1, RLENGTH)
    text = substr(text, RLENGTH + 1)
    return token
}

function string(    raw, plain, c) {
    raw = take("^\"([^\"\\\\]|\\\\.)*\"")
    raw = substr(raw, 2, length(raw) - 2)
    if (index(raw, "\\") == 0) return raw
    plain = ""
    while (c = index(raw, "\\")) {
        plain = plain substr(raw, 1, c - 1)
        raw = substr(raw, c + 1)
        c = substr(raw, 1, 1)
        if (c == "n" || c == "t" || c == "r") plain = plain " "
        else if (c == "u") { plain = plain sprintf("%c", hex(substr(raw, 2, 4))); raw = substr(raw, 5) }
        else if (c != "b" && c != "f") plain = plain c
        raw = substr(raw, 2)
    }
    return plain raw
}

function hex(digits,    i, n) {
    digits = tolower(digits)
    for (i = 1; i <= length(digits); i++) n = n * 16 + index("0123456789abcdef", substr(digits, i, 1)) - 1
    return n
}

function value(path,    key, n, prefix) {
    skip()
    prefix = path == "" ? "" : path "/"
    if (text ~ /^[{]/) {
        take("^[{]"); skip()
        while (text !~ /^[}]/) {
            key = string(); skip(); take("^:")
            value(prefix key); skip()
            sub(/^,/, "", text); skip()
        }
        take("^[}]")
    } else if (text ~ /^\[/) {
        take("^\\["); skip()
        n = 0
        while (text !~ /^\]/) {
            value(prefix n++); skip()
            sub(/^,/, "", text); skip()
        }
        take("^\\]")
    } else if (text ~ /^"/) {
        print path "\t" string()
    } else {
        print path "\t" take("^[-+.0-9a-zA-Z]+")
    }
}
