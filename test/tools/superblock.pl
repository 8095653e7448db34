#!/usr/bin/perl
# Changes a field of both superblock copies of a plumbfs image and makes their checksums right again, as a later version of
# plumbfs, or a clever enemy, would leave them. Offsets are those of fs/FORMAT.md, section 3.
#
# usage: superblock.pl IMAGE OFFSET u32|u64 VALUE
use strict;
use warnings;

my ($image, $offset, $type, $value) = @ARGV;
die "usage: superblock.pl IMAGE OFFSET u32|u64 VALUE\n"
    unless defined $value && $offset =~ /^\d+$/ && $type =~ /^u(32|64)$/ && $value =~ /^\d+$/;

# CRC-32C, bit by bit: 4096 bytes are few.
sub crc32c {
    my $crc = 0xffffffff;
    for my $byte (unpack 'C*', $_[0]) {
        $crc ^= $byte;
        $crc = ($crc >> 1) ^ (($crc & 1) ? 0x82f63b78 : 0) for 1 .. 8;
    }
    return $crc ^ 0xffffffff;
}

open my $file, '+<:raw', $image or die "$image: $!\n";
for my $copy (0, 65536) {
    seek $file, $copy, 0 or die "$image: $!\n";
    read($file, my $block, 4096) == 4096 or die "$image: too short\n";
    my $bytes = $type eq 'u32' ? pack('V', $value) : pack('Q<', $value);
    substr($block, $offset, length $bytes) = $bytes;
    substr($block, 8, 4) = pack 'V', 0;
    substr($block, 8, 4) = pack 'V', crc32c($block);
    seek $file, $copy, 0 or die "$image: $!\n";
    print $file $block or die "$image: $!\n";
}
close $file or die "$image: $!\n";
