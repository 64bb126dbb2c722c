# Tab completion of finsent for bash 4.2 or newer.
_finsent() {
    local line="${COMP_LINE:0:COMP_POINT}" words
    read -ra words <<< "$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    mapfile -t COMPREPLY < <("$1" completion candidates "${words[@]:1}" 2> /dev/null)
    [[ ${COMPREPLY[0]} == *[.=] ]] && compopt -o nospace
    # Bash splits a word at "=" and replaces what follows it.
    if [[ ${words[-1]} == *=* && $COMP_WORDBREAKS == *=* ]]; then
        COMPREPLY=("${COMPREPLY[@]#*=}")
    fi
}
complete -o default -F _finsent finsent
