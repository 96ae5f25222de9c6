#!/usr/bin/php-cgi
<?php
// Prints the variables that PHP derives from its environment.
header('Content-Type: text/plain');
foreach (explode(' ', 'PHP_SELF SCRIPT_NAME SCRIPT_FILENAME PATH_INFO REQUEST_URI DOCUMENT_ROOT PHP_AUTH_USER') as $name) {
    echo "$name=", $_SERVER[$name] ?? 'none', "\n";
}
echo file_get_contents('php://input');
