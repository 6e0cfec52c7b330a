#!/bin/busybox sh
# SPDX-License-Identifier: MIT
# shellcheck shell=dash
# /init of the Linux that hvm.c boots in an HVM partition: a prompt on the serial console.
/bin/busybox mkdir -p /proc /dev
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox --install -s /bin
export PS1='hvm-prompt# '
exec setsid cttyhack sh -i
