#compdef finsent
# Tab completion of finsent for zsh.
_finsent() {
    local -a candidates
    candidates=(${(f)"$("$words[1]" completion candidates "${(@)words[2,CURRENT]}" 2> /dev/null)"})
    if (( ! $#candidates )); then
        _files
        return
    fi
    compadd -S '' -- ${(M)candidates:#*[.=]}
    compadd -- ${candidates:#*[.=]}
}
if [[ $funcstack[1] == _finsent ]]; then
    _finsent "$@"
else
    compdef _finsent finsent
fi
