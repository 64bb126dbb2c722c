# Tab completion of finsent for fish.
function __finsent_candidates
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    $words[1] completion candidates $words[2..] "$current" 2> /dev/null
end
complete -c finsent -a '(__finsent_candidates)'
