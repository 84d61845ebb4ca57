# shellcheck shell=bash
# shellcheck disable=SC2154 # the variables come from debian.nix
# Makes a store path of a Debian package: $deb becomes $out, without $unwanted, bound to $glibc, $bash and what it needs of
# $libraries. With $whole there is more in it, and not all of that has to work.

mkdir root "$out"
cd root || exit
# Without setuid bits: Nix forbids them, and everybody is root here.
dpkg-deb --fsys-tarfile "$deb" | tar --extract --no-same-owner --no-same-permissions

# bin and lib only: what else there is are documents, translations, and the configuration of a Debian machine.
for part in bin sbin usr/bin usr/sbin; do
    [[ ! -d $part ]] || { mkdir -p "$out/bin" && cp -a "$part/." "$out/bin"; }
done
for part in lib/x86_64-linux-gnu usr/lib/x86_64-linux-gnu lib usr/lib; do
    [[ ! -d $part ]] || { mkdir -p "$out/lib" && cp -a "$part/." "$out/lib"; }
done
[[ ! -d usr/libexec ]] || cp -a usr/libexec "$out/libexec"
if [[ $whole ]]; then
    rm -rf usr/share/{doc,info,locale,man}
    for part in include share; do [[ ! -d usr/$part ]] || cp -a "usr/$part" "$out/$part"; done
fi
# The second copy of the libraries, from copying lib as a whole; converters for character sets (8 MB); what serves to build.
for part in x86_64-linux-gnu gconv pkgconfig $unwanted; do rm -rf "$out/lib/$part"; done
[[ ! -e $out/bin/bash ]] || ln -s bash "$out/bin/sh"
# Links that led out of the package, or to what is not here.
find "$out" -xtype l -delete

# The directory a library comes from, among this package's own and those it depends on.
directory_of() {
    local directory
    for directory in "$out/lib" $libraries; do
        for directory in "$directory" "$directory"/{nix,systemd}; do
            if [[ -e $directory/$1 ]]; then
                echo "$directory"
                return
            fi
        done
    done
    echo "$file needs $1, which is in none of the packages" >&2
    return 1
}

bind() {
    local file=$1 needed library directory runpath=''
    needed=$(patchelf --print-needed "$file" 2> /dev/null) || return 0 # static
    for library in $needed; do
        directory=$(directory_of "$library") || [[ $whole ]]
        [[ $directory ]] || continue
        [[ :$runpath: == *:$directory:* ]] || runpath+=${runpath:+:}$directory
    done
    patchelf --set-rpath "$runpath" "$file"
    if patchelf --print-interpreter "$file" > /dev/null 2>&1; then
        patchelf --set-interpreter "$glibc/lib/ld-linux-x86-64.so.2" "$file"
    fi
}

while IFS= read -r -d '' file; do
    IFS= read -r -n 4 magic < "$file" || true
    case $magic in
        $'\x7fELF') [[ ! $glibc ]] || bind "$file" || [[ $whole ]] ;;
        '#!'*) sed -i "1s|^#! */bin/|#!${bash:-$out}/bin/|" "$file" ;;
    esac
done < <(find "$out" -type f -print0)
