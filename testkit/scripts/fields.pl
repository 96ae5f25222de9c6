#!/usr/bin/perl
# Reports the fields of a form, in the style of early CGI programs.
use strict;
use warnings;
use Digest::MD5 qw(md5_hex);

binmode STDIN;
my $kind = $ENV{CONTENT_TYPE} // '';
my $text = $ENV{QUERY_STRING};
if ($ENV{REQUEST_METHOD} eq 'POST') {
    my $got = read(STDIN, $text, $ENV{CONTENT_LENGTH});
    die "too short" unless $got == $ENV{CONTENT_LENGTH};
}
print "Content-Type: text/plain\n\n";
if ($kind =~ m{^multipart/form-data;\s*boundary=(\S+)}) {
    my @parts = split(/--\Q$1\E/, $text);
    for my $part (@parts[1 .. $#parts - 1]) {
        my ($head, $value) = split(/\r\n\r\n/, substr($part, 2, -2), 2);
        my ($name) = $head =~ /[; ]name="([^"]*)"/;
        my $file = $head =~ /filename="([^"]*)"/ ? $1 : 'None';
        printf "%s %s %d %s\n", $name, $file, length $value, md5_hex($value);
    }
} else {
    for my $pair (split /&/, $text) {
        my ($name, $value) = map { tr/+/ /; s/%([0-9a-fA-F]{2})/chr hex $1/ger } split(/=/, $pair, 2);
        printf "%s None %d %s\n", $name, length $value, md5_hex($value);
    }
}
